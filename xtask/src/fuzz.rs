//! `cargo xtask fuzz`: lets libFuzzer search for input that breaks the readers of hostile data.
//!
//! Owns where it keeps what it finds. The readers and their seeds are in `tests/src/fuzz.rs`; `cargo
//! test` runs them on the seeds, on what is kept, and on mutations.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::{process, setup, workspace};

/// The readers, as `tests/src/fuzz.rs` names them.
const TARGETS: [&str; 7] = ["recording", "btf", "host", "record", "netlink", "journal", "tag"];

/// Longer inputs are not kept.
const LONGEST: u64 = 4096;

/// Inputs that are kept for each reader.
const KEPT: usize = 24;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds for each reader
    #[arg(long, value_name = "N", default_value_t = 120)]
    seconds: u32,
    /// Only these readers [default: all]
    targets: Vec<String>,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(setup::Level::Build)?;
    if process::capture(workspace::cargo().args(["fuzz", "--version"])).is_err() {
        process::run(workspace::cargo().args(["install", "cargo-fuzz", "--locked"]))?;
    }
    let all: Vec<String> = TARGETS.map(str::to_owned).into();
    let targets = if args.targets.is_empty() { &all } else { &args.targets };
    let mut failed = 0;
    for target in targets {
        process::step(&format!("{target}: {} s", args.seconds));
        let found = workspace::root().join("target/fuzz-corpus").join(target);
        let kept = kept(target);
        let seeds = workspace::root().join("tests/fixtures");
        for directory in [&found, &kept] {
            fs::create_dir_all(directory)
                .with_context(|| format!("make {}", directory.display()))?;
        }
        let mut fuzz = cargo_fuzz("run");
        fuzz.arg(target).args([&found, &kept, &seeds]).arg("--");
        fuzz.arg(format!("-max_total_time={}", args.seconds));
        fuzz.args(["-max_len=65536", "-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=1"]);
        failed += u32::from(process::run(&mut fuzz).is_err());
        keep(target, &found)?;
    }
    println!("{} passed, {failed} failed, 0 skipped", targets.len() as u32 - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where inputs that `cargo test` repeats are kept.
fn kept(target: &str) -> PathBuf {
    workspace::root().join("tests/fuzz/corpus").join(target)
}

/// Keeps some of a minimal set of what was found.
fn keep(target: &str, found: &Path) -> Result<()> {
    process::run(cargo_fuzz("cmin").arg(target).arg(found))?;
    let mut files: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(found)? {
        let entry = entry?;
        files.push((entry.metadata()?.len(), entry.path()));
    }
    files.sort();
    files.retain(|(length, _)| (1..=LONGEST).contains(length));
    // From short ones to long ones.
    let step = (files.len() / KEPT).max(1);
    for (_, path) in files.iter().step_by(step).take(KEPT) {
        let name = path.file_name().context("a file without a name")?;
        fs::copy(path, kept(target).join(name))?;
    }
    Ok(())
}

fn cargo_fuzz(command: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace::root());
    cargo.args(["+nightly", "fuzz", command, "--fuzz-dir", "fuzz", "--target-dir"]);
    cargo.arg(workspace::root().join("target/fuzz"));
    // Of the compiler that runs this program.
    cargo.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTFLAGS");
    cargo
}
