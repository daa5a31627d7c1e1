//! Runs every command of README and the other documents, on an interface with the name used there.
//!
//! A block of commands runs as one script. `cargo xtask` commands are checked by xtask's own tests;
//! a program that is neither run nor substituted fails the test.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use latency_tests::{namespace, python, tool};
use libtest_mimic::Trial;

use crate::{
    suite::{Where, trial},
    tracing::latency_user,
};

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let needs = ["ip", "bash", "tar", "jq", "cargo", "llvm-objdump"];
    [trial("docs::every_command_runs", Where::Host, &needs, every_command)]
        .into_iter()
        .flatten()
        .collect()
}

/// Substitutions in the shown commands: no system directory is written, runs are short, and
/// programs of the reader's own have a stand-in.
const REPLACED: [(&str, &str); 8] = [
    ("sudo -E ", ""),
    ("sudo ", ""),
    ("/usr/local/bin/", "installed/"),
    ("--duration 30s", "--duration 1s"),
    ("--duration 10s", "--duration 1s"),
    ("--time 5m", "--window 1s --settle 100ms --rounds 1"),
    ("experiment --plan", "experiment --plan --window 1s"),
    ("./load-test.sh", "sleep 1"),
];

/// Programs that a document may use, and what runs instead of those that are no part of the
/// project's set-up.
const PROGRAMS: [(&str, &str); 9] = [
    ("latency-user", "latency-user"),
    ("cargo", "cargo"),
    ("export", "export"),
    ("install", "mkdir -p installed && install"),
    ("mkdir", "mkdir"),
    ("tar", "tar"),
    ("jq", "jq"),
    // Takes lines of "frame;frame;frame count".
    ("flamegraph.pl", "awk '!/^[^;]+(;[^;]+)* [0-9]+$/ { exit 1 } { print }'"),
    ("llvm-objdump", "llvm-objdump"),
];

fn every_command() -> Result<()> {
    namespace::run(|| {
        tool::run("ip link add eth0 type veth peer name eth1")?;
        tool::run("ip link set eth0 up")?;
        tool::run("ip link set eth1 up")?;
        let mut commands = 0;
        for file in files()? {
            let directory = scratch()?;
            for block in blocks(&fs::read_to_string(&file)?) {
                let name = file.display();
                let block = runnable(&block).with_context(|| format!("{name}: {block:?}"))?;
                run(&block, directory.path()).with_context(|| format!("{name}: {block:?}"))?;
                commands += block.len();
            }
        }
        ensure!(commands > 20, "only {commands} commands were found");
        Ok(())
    })
}

/// All documents.
fn files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for directory in ["", "docs", "docs/decisions", "latency-user/src/recording"] {
        let directory = root().join(directory);
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            files.push(entry?.path());
        }
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    files.sort();
    Ok(files)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The command lines of each shell block, without comments; continued lines are joined.
fn blocks(text: &str) -> Vec<Vec<String>> {
    let blocks = text.split("\n```sh\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("\n```").next());
    blocks
        .map(|block| {
            let block = block.replace("\\\n", " ");
            let lines = block.lines().map(|line| line.split(" #").next().unwrap_or_default());
            let lines = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
            lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
        })
        .collect()
}

/// The commands to run for the lines of a block, without those that xtask's tests check.
fn runnable(lines: &[String]) -> Result<Vec<String>> {
    let lines = lines.iter().filter(|line| !line.starts_with("cargo xtask "));
    lines
        .map(|line| {
            let mut command = line.clone();
            for (shown, run) in REPLACED {
                command = command.replace(shown, run);
            }
            let chain: Result<Vec<String>> = command.split(" && ").map(known).collect();
            Ok(chain?.join(" && "))
        })
        .collect()
}

/// A pipeline in which each program is of [`PROGRAMS`]. An endless trace is ended.
fn known(pipeline: &str) -> Result<String> {
    let commands: Result<Vec<String>> = pipeline
        .split(" | ")
        .map(|command| {
            let (program, rest) = command.split_once(' ').unwrap_or((command, ""));
            let run = PROGRAMS.iter().find(|(shown, _)| *shown == program);
            let (_, run) = run.with_context(|| {
                format!("{program}: no test runs it; add it to PROGRAMS in tests/kernel/docs.rs")
            })?;
            let endless = rest.starts_with("trace") && !rest.contains("--duration");
            let limit = if endless && !rest.contains(" -- ") { " --duration 1s" } else { "" };
            // A filter takes what the reader's program would have taken as an argument.
            let rest =
                if run.starts_with("awk") { rest.trim_start_matches(|c| c != '>') } else { rest };
            Ok(format!("{run} {rest}{limit}"))
        })
        .collect();
    Ok(commands?.join(" | "))
}

/// A directory with the recordings that the docs mention, the build directory, and a
/// `latency-user` whose findings (exit status 4) are no failure.
fn scratch() -> Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    let recordings = [
        ("before.hlog", "collapse-v1.hlog"),
        ("after.hlog", "idle-v1.hlog"),
        ("web-1.hlog", "collapse-v1.hlog"),
        ("web-2.hlog", "idle-v1.hlog"),
        ("old-1.hlog", "collapse-v1.hlog"),
        ("new-1.hlog", "idle-v1.hlog"),
    ];
    for (name, fixture) in recordings {
        fs::copy(python::script(fixture), directory.path().join(name))?;
    }
    let tested = latency_user()?;
    let tested = tested.get_program().display();
    let script = format!("#!/bin/sh\n{tested} \"$@\" || {{ s=$?; [ $s = 4 ] || exit $s; }}\n");
    let wrapper = directory.path().join("latency-user");
    fs::write(&wrapper, script)?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    Ok(directory)
}

/// Runs the commands of a block: those that need the source at its root, others in `directory`.
fn run(commands: &[String], directory: &Path) -> Result<()> {
    let root = root();
    let needs_source = |command: &String| command.contains("cargo ") || command.contains("target/");
    let place = if commands.iter().any(needs_source) { &*root } else { directory };
    let script =
        commands.join("\n").replace("installed", &directory.join("installed").to_string_lossy());
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("timeout")
        .args(["300", "bash", "-c", &format!("set -eo pipefail\n{script}")])
        .env("PATH", format!("{}:{path}", directory.display()))
        .current_dir(place)
        .output()?;
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
