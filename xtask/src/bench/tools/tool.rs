//! One tool to measure: how to start it, and how to read its count of NET_RX runs.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{
    bench::tracer::{Output, Tracer},
    build_ebpf,
};

/// `package` of the variants of latency-user, which no Debian package provides.
pub(super) const LATENCY_USER: &str = "latency-user";

/// A tool to measure.
pub(crate) struct Tool {
    /// Name in the table; unique among the tools.
    pub(crate) name: &'static str,
    /// `None`: not installed here.
    pub(super) program: Option<PathBuf>,
    pub(super) arguments: Vec<String>,
    /// The Debian package that provides it.
    pub(super) package: &'static str,
    /// NET_RX runs that it counted; `None`: it does not report them.
    pub(super) count: fn(&Output) -> Option<u64>,
}

impl Tool {
    /// Starts it and waits until it traces.
    pub(crate) fn start(&self) -> Result<Tracer> {
        Tracer::start(&mut self.command()?)
    }

    /// The command that starts it.
    pub(crate) fn command(&self) -> Result<Command> {
        let program = self.program.as_ref().with_context(|| {
            format!("not installed, and package {} does not provide it here", self.package)
        })?;
        let mut command = Command::new(program);
        command.args(&self.arguments);
        Ok(command)
    }

    pub(crate) fn counted(&self, output: &Output) -> Option<u64> {
        (self.count)(output)
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.package == LATENCY_USER
    }
}

pub(super) fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

pub(super) fn installed(program: &str) -> Option<PathBuf> {
    build_ebpf::find_program(program)
}

/// Sum of the counts of log2 histograms as bcc's and bpftrace's tools print them:
/// `4 -> 7 : 36 |****|` or `[4, 8)  36 |@@@@|`.
pub(super) fn sum_of_rows<'a>(lines: impl Iterator<Item = &'a str>) -> u64 {
    lines
        .filter_map(|line| {
            let before_bar = line.split_once('|')?.0;
            before_bar.split_whitespace().next_back()?.parse::<u64>().ok()
        })
        .sum()
}
