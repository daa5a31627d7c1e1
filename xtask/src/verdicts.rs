//! `cargo xtask verdicts`: simulates how often verdicts are wrong, in full, and writes the table.
//!
//! Owns where the table goes. The simulator is `tests/simulator`; the tests run it in short.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result};

use crate::{
    build, process,
    workspace::{self, TESTS_PACKAGE},
};

/// Below the workspace's root.
const TABLE: &str = "docs/verdicts.md";

const HEAD: &str = "\
# How often verdicts are wrong

Written by `cargo xtask verdicts`, which simulates recordings and experiments in which nothing
changed, or something by a known factor. *False* counts verdicts of *improved* or *worse* where
nothing changed; 5 % are expected at most. The worlds are described in
[worlds.py](../tests/simulator/worlds.py). The last column, or the one after *share*, tells how many
95 % intervals cover the true ratio.
";

pub(crate) fn main() -> Result<ExitCode> {
    let program = build::release_binary("latency-user", "latency-user")?;
    let judge = build::release_binary(TESTS_PACKAGE, "judge-windows")?;
    process::step("simulating; takes about half an hour");
    let mut command = Command::new(process::need("python3")?);
    command.arg(workspace::root().join("tests/simulator/simulate.py"));
    command.arg("--latency-user").arg(program).arg("--judge").arg(judge);
    let line = process::line(&command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{line}`"))?;
    let stdout = child.stdout.take().context("the table was not piped")?;
    let mut table = HEAD.to_owned();
    for row in BufReader::new(stdout).lines() {
        let row = row?;
        println!("{row}");
        table.push_str(&row);
        table.push('\n');
    }
    let status = child.wait()?;
    let path = workspace::root().join(TABLE);
    fs::write(&path, table).with_context(|| format!("write {}", path.display()))?;
    process::step(&format!("table: {}", path.display()));
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
