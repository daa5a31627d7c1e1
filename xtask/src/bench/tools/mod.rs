//! The tools to measure: latency-user, other tools as baselines, and no-op programs as the lower
//! bound for any tracer.
//!
//! One file each. Owns the list of tools of each benchmark.

use super::built::Built;

pub(crate) mod bpftrace;
pub(crate) mod funclatency;
pub(crate) mod noop;
pub(crate) mod ours;
pub(crate) mod perf;
pub(crate) mod rezolus;
pub(crate) mod softirqs;
pub(crate) mod tool;

use tool::Tool;

/// Debian packages that provide the baselines, each with a program that shows it is installed.
pub(crate) const PACKAGES: [(&str, &str); 3] =
    [("softirqs", "libbpf-tools"), ("bpftrace", "bpftrace"), ("perf", "linux-perf")];

/// Baselines to pack into a virtual machine.
pub(crate) const GUEST_PROGRAMS: [&str; 3] = ["softirqs", "funclatency", "bpftrace"];

/// Tools whose programs' run time in the kernel is measured.
pub(crate) fn per_event(built: &Built) -> Vec<Tool> {
    let mut all = noop::all(built);
    all.extend([softirqs::tool(), ours::cycle(built), ours::everything(built), bpftrace::tool()]);
    all
}

/// Tools whose effect on the packet rate is measured.
pub(crate) fn rate(built: &Built) -> Vec<Tool> {
    let mut all = vec![noop::empty(built), noop::as_ours(built)];
    all.extend([
        softirqs::tool(),
        ours::stage(built),
        ours::cycle(built),
        ours::without_sampler(built),
        ours::everything(built),
        bpftrace::tool(),
        perf::tool(),
    ]);
    all
}

/// Tools that are measured with many packets in a poll.
pub(crate) fn batches(built: &Built) -> Vec<Tool> {
    vec![
        noop::empty(built),
        softirqs::tool(),
        ours::cycle(built),
        ours::everything(built),
        bpftrace::tool(),
    ]
}

/// Tools whose effect on latency is measured.
pub(crate) fn tail(built: &Built) -> Vec<Tool> {
    vec![
        ours::everything(built),
        ours::always_sampled(built),
        ours::without_sampler(built),
        softirqs::tool(),
    ]
}

/// The same stages timed by different probe methods; needs a kernel that has all of them.
pub(crate) fn methods(built: &Built) -> Vec<Tool> {
    vec![
        noop::empty(built),
        noop::as_ours(built),
        ours::by(built, "tracepoint"),
        ours::by(built, "fentry"),
        ours::by(built, "kprobe"),
        ours::cycle(built),
        softirqs::tool(),
        funclatency::tool(),
        bpftrace::tool(),
    ]
}
