//! Runs every command of README and docs, on an interface with the name used there.
//!
//! `cargo` commands are checked by xtask's own tests.

use std::{
    fs,
    os::unix::fs::symlink,
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
    let needs = ["ip", "bash", "tar"];
    [trial("docs::every_command_runs", Where::Host, &needs, every_command)]
        .into_iter()
        .flatten()
        .collect()
}

/// Substitutions in the shown commands, mainly to make them run for less time.
const REPLACED: [(&str, &str); 8] = [
    ("sudo -E ", ""),
    ("sudo ", ""),
    ("target/release/latency-user", "latency-user"),
    ("/usr/local/bin/", "installed/"),
    ("--duration 30s", "--duration 1s"),
    ("--duration 10s", "--duration 1s"),
    ("--window 30s --rounds 3", "--window 2s --settle 100ms --rounds 1"),
    ("./load-test.sh", "sleep 1"),
];

/// Programs whose commands are run. Pipes into other programs are not checked.
const SHELL: [&str; 5] = ["latency-user", "mkdir", "tar", "source", "jq"];

fn every_command() -> Result<()> {
    namespace::run(|| {
        tool::run("ip link add eth0 type veth peer name eth1")?;
        tool::run("ip link set eth0 up")?;
        tool::run("ip link set eth1 up")?;
        let mut commands = 0;
        for file in files()? {
            let directory = scratch()?;
            for line in lines(&fs::read_to_string(&file)?) {
                if let Some(command) = runnable(&line) {
                    run(&command, directory.path())
                        .with_context(|| format!("{}: {line}", file.display()))?;
                    commands += 1;
                }
            }
        }
        ensure!(commands > 15, "only {commands} commands were found");
        Ok(())
    })
}

/// README and all documents.
fn files() -> Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = vec![root.join("README.md")];
    for entry in fs::read_dir(root.join("docs"))? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    files.sort();
    Ok(files)
}

/// The lines of shell blocks without comments; continued lines are joined.
fn lines(text: &str) -> Vec<String> {
    let blocks = text.split("\n```sh\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("\n```").next());
    let joined = blocks.map(|block| block.replace("\\\n", " "));
    let lines = joined.flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>());
    lines
        .map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

/// The command to run for a line; `None` if it runs a program that is not in [`SHELL`].
fn runnable(line: &str) -> Option<String> {
    let mut command = line.split_whitespace().collect::<Vec<_>>().join(" ");
    for (shown, run) in REPLACED {
        command = command.replace(shown, run);
    }
    let program = command.split_whitespace().next()?.to_owned();
    if !SHELL.contains(&program.as_str()) {
        return None;
    }
    if let Some((ours, theirs)) = command.split_once(" | ")
        && !theirs.split_whitespace().next().is_some_and(tool::exists)
    {
        command = ours.to_owned();
    }
    let endless = command.starts_with("latency-user trace")
        && !command.contains("--duration")
        && !command.contains(" -- ");
    if endless {
        command.push_str(" --duration 1s");
    }
    Some(command)
}

/// A directory with the recordings that the docs mention.
fn scratch() -> Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    let recordings = [
        ("before.hlog", "collapse-v1.hlog"),
        ("after.hlog", "idle-v1.hlog"),
        ("web-1.hlog", "collapse-v1.hlog"),
        ("web-2.hlog", "idle-v1.hlog"),
    ];
    for (name, fixture) in recordings {
        fs::copy(python::script(fixture), directory.path().join(name))?;
    }
    symlink(latency_user()?.get_program(), directory.path().join("latency-user"))?;
    Ok(directory)
}

/// Runs a shell command line; exit status 4 (findings) is not a failure.
fn run(command: &str, directory: &Path) -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("timeout")
        .args(["120", "bash", "-c", &format!("set -o pipefail; {command}")])
        .env("PATH", format!("{}:{path}", directory.display()))
        .current_dir(directory)
        .output()?;
    let found = output.status.code() == Some(4);
    ensure!(
        output.status.success() || found,
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
