//! `cargo xtask ci`: all checks that a change must pass.
//!
//! Owns the order of the steps, cheap ones first, and their timing.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{layers, licences, process, setup, test, workspace};

#[derive(clap::Args)]
#[group(id = "ci")]
pub(crate) struct Args {
    /// Skip the tests: only formatting, lints, layers, licences, documentation and the eBPF build
    #[arg(long)]
    lint: bool,
    #[command(flatten)]
    test: test::Args,
}

type Step<'a> = (&'a str, &'a dyn Fn() -> Result<()>);

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let tests = || succeeded(test::main(&args.test)?);
    let mut steps: Vec<Step<'_>> = vec![
        ("formatting", &|| process::run(workspace::cargo().args(["fmt", "--all", "--check"]))),
        ("layers and circles", &|| succeeded(layers::main()?)),
        ("licences", &|| succeeded(licences::main()?)),
        // Clippy compiles latency-user, whose build script needs the BPF toolchain.
        ("setup", &|| setup::ensure(setup::Level::Build)),
        ("eBPF programs", &|| workspace::build_ebpf().map(drop)),
        ("lints", &lint),
        ("documentation", &document),
    ];
    if !args.lint {
        steps.push(("tests", &tests));
    }

    let mut times: Vec<(&str, Duration)> = Vec::new();
    for (name, step) in steps {
        process::step(&format!("ci: {name}"));
        let started = Instant::now();
        step().with_context(|| format!("ci step failed: {name}"))?;
        times.push((name, started.elapsed()));
    }
    for (name, time) in times {
        println!("{name}: {:.1} s", time.as_secs_f64());
    }
    Ok(ExitCode::SUCCESS)
}

fn lint() -> Result<()> {
    let mut clippy = workspace::cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]);
    process::run(&mut clippy)
}

/// Builds the documentation, in which every link must lead somewhere.
fn document() -> Result<()> {
    let mut doc = workspace::cargo();
    doc.args(["doc", "--no-deps", "--document-private-items"]).env("RUSTDOCFLAGS", "-D warnings");
    process::run(&mut doc)
}

fn succeeded(code: ExitCode) -> Result<()> {
    if code != ExitCode::SUCCESS {
        bail!("see above");
    }
    Ok(())
}
