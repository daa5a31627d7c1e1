//! Who is measured: ours, the rivals, and the floors below which no tracer can come.
//!
//! One file each; here is what they have in common.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::{Built, tracer::Said, tracer::Tracer};
use crate::build_ebpf;

pub(crate) mod bpftrace;
pub(crate) mod floors;
pub(crate) mod funclatency;
pub(crate) mod ours;
pub(crate) mod perf;
pub(crate) mod softirqs;

/// One who is measured.
pub(crate) struct Contender {
    /// As the table names it; it also tells contenders apart.
    pub(crate) name: &'static str,
    /// `None`: not installed here.
    program: Option<PathBuf>,
    arguments: Vec<String>,
    /// The Debian package that brings it.
    package: &'static str,
    /// NET_RX runs that it says it has seen; `None`: it does not say.
    count: fn(&Said) -> Option<u64>,
}

impl Contender {
    /// Starts it and waits until it traces.
    pub(crate) fn start(&self) -> Result<Tracer> {
        Tracer::start(&mut self.command()?)
    }

    /// The command that it is.
    pub(crate) fn command(&self) -> Result<Command> {
        let program = self.program.as_ref().with_context(|| {
            format!("not installed, and the package {} does not bring it here", self.package)
        })?;
        let mut command = Command::new(program);
        command.args(&self.arguments);
        Ok(command)
    }

    pub(crate) fn seen(&self, said: &Said) -> Option<u64> {
        (self.count)(said)
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.package == ours::PACKAGE
    }
}

/// Debian packages that bring the rivals, and the programs that show that they are there.
pub(crate) const PACKAGES: [(&str, &str); 3] =
    [("softirqs", "libbpf-tools"), ("bpftrace", "bpftrace"), ("perf", "linux-perf")];

/// Rivals that go along into a virtual machine.
pub(crate) const GUEST_PROGRAMS: [&str; 3] = ["softirqs", "funclatency", "bpftrace"];

/// Those whose programs are timed one by one.
pub(crate) fn per_event(built: &Built) -> Vec<Contender> {
    let mut all = floors::all(built);
    all.extend([
        softirqs::contender(),
        ours::cycle(built),
        ours::everything(built),
        bpftrace::contender(),
    ]);
    all
}

/// Those whose effect on the packet rate is measured.
pub(crate) fn rate(built: &Built) -> Vec<Contender> {
    let mut all = vec![floors::empty(built), floors::as_ours(built)];
    all.extend([
        softirqs::contender(),
        ours::cycle(built),
        ours::without_sampler(built),
        ours::everything(built),
        bpftrace::contender(),
        perf::contender(),
    ]);
    all
}

/// Those whose effect on latency is measured.
pub(crate) fn tail(built: &Built) -> Vec<Contender> {
    vec![ours::everything(built), ours::without_sampler(built), softirqs::contender()]
}

/// The same thing timed by different probes; needs a kernel that has them all.
pub(crate) fn methods(built: &Built) -> Vec<Contender> {
    vec![
        floors::empty(built),
        floors::as_ours(built),
        ours::by(built, "tracepoint"),
        ours::by(built, "fentry"),
        ours::by(built, "kprobe"),
        ours::cycle(built),
        softirqs::contender(),
        funclatency::contender(),
        bpftrace::contender(),
    ]
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

fn installed(program: &str) -> Option<PathBuf> {
    build_ebpf::find_program(program)
}

/// Sum of the counts of log2 histograms as bcc's and bpftrace's tools print them:
/// `4 -> 7 : 36 |****|` or `[4, 8)  36 |@@@@|`.
fn sum_of_rows<'a>(lines: impl Iterator<Item = &'a str>) -> u64 {
    lines
        .filter_map(|line| {
            let before_bar = line.split_once('|')?.0;
            before_bar.split_whitespace().next_back()?.parse::<u64>().ok()
        })
        .sum()
}
