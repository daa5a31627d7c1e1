//! Builds the tests: where each runs, and the reason when it is skipped.

use std::env;

use anyhow::Result;
use latency_tests::release;
use libtest_mimic::{Failed, Trial};

/// Where a test runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    /// On every kernel.
    Everywhere,
    /// On the machine's own kernel only: it needs tools that the virtual machines lack.
    Host,
    /// In virtual machines only: it needs kprobes and fentry, which the machine may lack.
    Vm,
}

/// The kernel series if this is a virtual machine of `cargo xtask test`.
pub(crate) fn vm_series() -> Option<String> {
    env::var("LATENCY_VM").ok()
}

/// Whether this is a virtual machine of `cargo xtask test`.
pub(crate) fn in_vm() -> bool {
    vm_series().is_some()
}

/// A test named `root::NAME`. `None` if it does not run at this `place`. Without root or one of
/// `tools` it is skipped, with a message.
pub(crate) fn trial(
    name: &str,
    place: Where,
    tools: &[&str],
    body: fn() -> Result<()>,
) -> Option<Trial> {
    trial_unless(None, name, place, tools, body)
}

/// As [`trial`], of something that kernels have since a release; skipped on older ones.
pub(crate) fn trial_since(
    (major, minor): (u32, u32),
    name: &str,
    place: Where,
    tools: &[&str],
    body: fn() -> Result<()>,
) -> Option<Trial> {
    let lacks = release::is_before(major, minor)
        .then(|| format!("kernels have what it tests since {major}.{minor}"));
    trial_unless(lacks, name, place, tools, body)
}

/// As [`trial`], skipped if there is a reason.
#[expect(clippy::print_stderr, reason = "a skip says why, before the harness counts it")]
pub(crate) fn trial_unless(
    unsuited: Option<String>,
    name: &str,
    place: Where,
    tools: &[&str],
    body: fn() -> Result<()>,
) -> Option<Trial> {
    if (place == Where::Host && in_vm()) || (place == Where::Vm && !in_vm()) {
        return None;
    }
    let missing = tools.iter().find(|tool| !latency_tests::tool::exists(tool));
    // SAFETY: the call takes nothing and cannot fail.
    let reason = match (unsafe { libc::geteuid() }, missing) {
        (0, None) => unsuited,
        (0, Some(tool)) => Some(format!("{tool} is not installed")),
        _ => Some("it needs root".to_owned()),
    };
    let full = format!("root::{name}");
    if let Some(reason) = &reason {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        eprintln!("skipped on Linux {}: {full}: {reason}", kernel.trim());
    }
    let run = move || body().map_err(|error| Failed::from(format!("{error:?}")));
    Some(Trial::test(full, run).with_ignored_flag(reason.is_some()))
}
