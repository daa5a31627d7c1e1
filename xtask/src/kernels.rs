//! `cargo xtask kernels`: what works on which kernel, by running `doctor` on each in a virtual machine.
//! Writes the tables of docs/kernels.md and the README.
//!
//! Owns the list of kernels that are tried.

use std::{fs, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{architecture::Architecture, build, process, setup, vm, workspace};

/// All that Debian has, from the oldest to the newest; not 5.10 for Arm, where verifying one program
/// of the tests takes minutes.
pub(crate) const ALL: [(Architecture, &[&str]); 2] = [
    (Architecture::Amd64, &["5.10", "6.1", "6.1-rt", "6.12", "6.12-rt", "6.18", "newest"]),
    (Architecture::Arm64, &["6.1", "6.12", "6.12-16k", "6.12-rt", "6.18", "newest"]),
];

/// A machine boots within seconds.
const DEADLINE: Duration = Duration::from_secs(180);

/// Where the table of all methods is, and the short one.
const DOCUMENTS: [&str; 2] = ["docs/kernels.md", "README.md"];
/// Between these lines.
const START: &str = "<!-- made by cargo xtask kernels -->";
const END: &str = "<!-- end -->";

pub(crate) fn main() -> Result<ExitCode> {
    setup::ensure(setup::Level::Test)?;
    let mut tried = Vec::new();
    for (architecture, kernels) in ALL {
        let program = build::latency_user(architecture)?;
        for series in kernels {
            if let Err(error) = vm::fetch(series, architecture) {
                eprintln!("skipped: Linux {series}, {}: {error:#}", architecture.debian());
                continue;
            }
            process::step(&format!("doctor on Linux {series}, {}", architecture.debian()));
            tried.push(doctor(&program, series, architecture)?);
        }
    }
    for (document, table) in DOCUMENTS.iter().zip([methods(&tried), summary(&tried)]) {
        write(document, &table)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What `doctor` says of one kernel.
struct Found {
    /// As kernels are asked for.
    series: String,
    architecture: Architecture,
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
    let mut read = |line: &str| {
        diagnosis = diagnosis.take().or_else(|| parse(line, series, architecture));
    };
    vm::boot(&guest, &mut read)?;
    diagnosis.with_context(|| format!("doctor printed nothing on Linux {series}"))
}

/// A line of JSON.
fn parse(line: &str, series: &str, architecture: Architecture) -> Option<Found> {
    let value: Value = serde_json::from_str(line).ok()?;
    let stages = value["stages"].as_array()?.iter().map(|stage| {
        let method = stage["would_use"].as_str().map(str::to_owned);
        Some((stage["stage"].as_str()?.to_owned(), method))
    });
    let interfaces = value["interfaces"].as_array()?;
    Some(Found {
        series: series.to_owned(),
        architecture,
        release: value["kernel"].as_str()?.to_owned(),
        stages: stages.collect::<Option<_>>()?,
        has_netlink: interfaces.iter().any(|interface| !interface["instances"].is_null()),
    })
}

impl Found {
    /// The kernel in a few characters.
    fn name(&self) -> String {
        let mut numbers = self.release.split('.');
        match (self.series.as_str(), numbers.next(), numbers.next()) {
            (vm::NEWEST, Some(major), Some(minor)) => format!("{major}.{minor} (newest)"),
            (series, ..) => series.to_owned(),
        }
    }

    /// What works there, in a few words.
    fn words(&self) -> String {
        let method = |wanted: &str| {
            let stage = self.stages.iter().find(|(stage, _)| stage == wanted);
            stage.and_then(|(_, method)| method.as_deref())
        };
        let missing = self.stages.iter().filter(|(_, method)| method.is_none());
        let missing: Vec<_> = missing.map(|(stage, _)| format!("`{stage}`")).collect();
        let stages = match missing.is_empty() {
            true => "all".to_owned(),
            false => format!("all but {}", missing.join(", ")),
        };
        let by = |stage| method(stage).unwrap_or("not");
        let netlink = if self.has_netlink { ", netlink" } else { "" };
        format!("{stages}: {}, {}{netlink}", by("napi_poll"), by("tcp_collapse"))
    }
}

/// The method that times each stage, on each kernel.
fn methods(tried: &[Found]) -> String {
    let stages = tried.first().map_or(&[][..], |found| &found.stages);
    let stages: Vec<_> = stages.iter().map(|(stage, _)| stage.as_str()).collect();
    let mut head = vec!["kernel", "machine"];
    head.extend(&stages);
    head.push("queues by netlink");
    let rows = tried.iter().map(|found| {
        let mut row = vec![found.release.as_str(), found.architecture.rust()];
        row.extend(found.stages.iter().map(|(_, method)| method.as_deref().unwrap_or("no")));
        row.push(if found.has_netlink { "yes" } else { "no" });
        row.join(" | ")
    });
    table(&head.join(" | "), rows)
}

/// A row for each kernel, a column for each architecture.
fn summary(tried: &[Found]) -> String {
    let mut names: Vec<String> = Vec::new();
    for found in tried {
        if !names.contains(&found.name()) {
            names.push(found.name());
        }
    }
    let rows = names.iter().map(|name| {
        let cell = |(architecture, _): &(Architecture, &[&str])| {
            let mut of_kernel = tried.iter().filter(|found| found.name() == *name);
            let found = of_kernel.find(|found| found.architecture == *architecture);
            found.map_or_else(|| "not tried".to_owned(), Found::words)
        };
        let cells: Vec<String> = ALL.iter().map(cell).collect();
        format!("{name} | {}", cells.join(" | "))
    });
    let architectures: Vec<_> = ALL.iter().map(|(architecture, _)| architecture.debian()).collect();
    table(&format!("Linux | {}", architectures.join(" | ")), rows)
}

fn table(head: &str, rows: impl Iterator<Item = String>) -> String {
    let line = "|---".repeat(head.split('|').count());
    let rows: Vec<_> = rows.map(|row| format!("| {row} |\n")).collect();
    format!("| {head} |\n{line}|\n{}", rows.concat())
}

/// Replaces the table in a document.
fn write(document: &str, table: &str) -> Result<()> {
    let path = workspace::root().join(document);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let (Some((before, _)), Some((_, after))) = (text.split_once(START), text.split_once(END))
    else {
        bail!("{document} has no lines {START:?} and {END:?}");
    };
    fs::write(&path, format!("{before}{START}\n{table}{END}{after}"))?;
    process::step(&format!("wrote {}", path.display()));
    Ok(())
}
