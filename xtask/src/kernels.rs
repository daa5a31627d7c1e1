//! `cargo xtask kernels`: what works on which kernel, by running `doctor` on each in a virtual machine.
//! Writes the table of docs/kernels.md.
//!
//! Owns the list of kernels that are tried.

use std::{fs, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{architecture::Architecture, build, process, setup, vm, workspace};

/// All that Debian has, from the oldest to the newest.
pub(crate) const ALL: [(Architecture, &[&str]); 2] = [
    (Architecture::Amd64, &["5.10", "6.1", "6.1-rt", "6.12", "6.12-rt", "6.18", "newest"]),
    (Architecture::Arm64, &["6.1", "6.12", "6.12-16k", "newest"]),
];

/// A machine boots within seconds.
const DEADLINE: Duration = Duration::from_secs(180);

/// Where the table is.
const DOCUMENT: &str = "docs/kernels.md";
/// Between these lines.
const START: &str = "<!-- made by cargo xtask kernels -->";
const END: &str = "<!-- end -->";

pub(crate) fn main() -> Result<ExitCode> {
    setup::ensure(setup::Level::Test)?;
    let mut rows = Vec::new();
    let mut stages: Vec<String> = Vec::new();
    for (architecture, kernels) in ALL {
        let program = build::latency_user(architecture)?;
        for series in kernels {
            if let Err(error) = vm::fetch(series, architecture) {
                eprintln!("skipped: Linux {series}, {}: {error:#}", architecture.debian());
                continue;
            }
            process::step(&format!("doctor on Linux {series}, {}", architecture.debian()));
            let found = doctor(&program, series, architecture)?;
            if stages.is_empty() {
                stages = found.stages.iter().map(|(stage, _)| stage.clone()).collect();
            }
            rows.push(found.row(architecture));
        }
    }
    write(&stages, &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// What `doctor` says of one kernel.
struct Found {
    release: String,
    /// Stages with the method that would be used.
    stages: Vec<(String, Option<String>)>,
    /// Whether netlink names queues of some NIC.
    has_netlink: bool,
}

fn doctor(program: &Path, series: &str, architecture: Architecture) -> Result<Found> {
    let name = program.to_string_lossy().into_owned();
    let guest = vm::Guest {
        kernel: series.to_owned(),
        architecture,
        command: vec![name, "doctor".into(), "--format".into(), "json".into()],
        variables: Vec::new(),
        files: Vec::new(),
        nics: Vec::new(),
        deadline: DEADLINE,
    };
    let mut diagnosis = None;
    // Its status tells whether every stage works.
    vm::boot(&guest, &mut |line| diagnosis = diagnosis.take().or_else(|| parse(line)))?;
    diagnosis.with_context(|| format!("doctor printed nothing on Linux {series}"))
}

/// A line of JSON.
fn parse(line: &str) -> Option<Found> {
    let value: Value = serde_json::from_str(line).ok()?;
    let stages = value["stages"].as_array()?.iter().map(|stage| {
        let method = stage["would_use"].as_str().map(str::to_owned);
        Some((stage["stage"].as_str()?.to_owned(), method))
    });
    let interfaces = value["interfaces"].as_array()?;
    Some(Found {
        release: value["kernel"].as_str()?.to_owned(),
        stages: stages.collect::<Option<_>>()?,
        has_netlink: interfaces.iter().any(|interface| !interface["instances"].is_null()),
    })
}

impl Found {
    fn row(&self, architecture: Architecture) -> String {
        let methods = self.stages.iter().map(|(_, method)| method.as_deref().unwrap_or("no"));
        let methods: Vec<_> = methods.collect();
        let netlink = if self.has_netlink { "yes" } else { "no" };
        let name = architecture.rust();
        format!("| {} | {name} | {} | {netlink} |", self.release, methods.join(" | "))
    }
}

/// Replaces the table in the document.
fn write(stages: &[String], rows: &[String]) -> Result<()> {
    let path = workspace::root().join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let (Some((before, _)), Some((_, after))) = (text.split_once(START), text.split_once(END))
    else {
        bail!("{DOCUMENT} has no lines {START:?} and {END:?}");
    };
    let columns = stages.len() + 3;
    let table = format!(
        "| kernel | machine | {} | queues by netlink |\n{}|\n{}\n",
        stages.join(" | "),
        "|---".repeat(columns),
        rows.join("\n")
    );
    fs::write(&path, format!("{before}{START}\n{table}{END}{after}"))?;
    process::step(&format!("wrote {}", path.display()));
    Ok(())
}
