//! The benchmarks, one file each.

use super::{
    results::Results,
    tools::{ours, tool::Tool},
    tracer::Output,
};

pub(crate) mod files;
pub(crate) mod growth;
pub(crate) mod per_event;
pub(crate) mod rate;
pub(crate) mod rows;
pub(crate) mod scale;
pub(crate) mod serve;
pub(crate) mod single_run;
pub(crate) mod tail;

/// A load, and the titles of what is measured under it.
pub(crate) struct Traffic {
    load: &'static [&'static str],
    per_event: &'static str,
    rate: &'static str,
    /// Packets that arrive together.
    together: u64,
    /// Whether the goals are for this one.
    is_judged: bool,
}

/// Each packet raises its own NET_RX softirq.
pub(crate) static SINGLE: Traffic = Traffic {
    load: &["udp"],
    per_event: "Per event: program run time, UDP over loopback",
    rate: "Packet rate kept, UDP over loopback, statistics off",
    together: 1,
    is_judged: true,
};

/// 64 packets in each NAPI poll.
pub(crate) static BATCHES: Traffic = Traffic {
    load: &["batches"],
    per_event: "Per poll of 64 packets: program run time, UDP over veth",
    rate: "Packet rate kept, polls of 64 packets, statistics off",
    together: 64,
    is_judged: false,
};

/// Checks what a tool reports as counted: latency-user against the kernel's count of softirqs and
/// the packets that were sent, other tools only for having counted anything.
fn check_counts(tool: &Tool, output: &Output, sent: u64, results: &mut Results) {
    let name = tool.name;
    let Some(counted) = tool.counted(output) else { return };
    results.check(format!("{name} counts"), counted > 0, || "it counted nothing".to_owned());
    if !tool.is_ours() {
        return;
    }
    let (least, most) = (output.least, output.most);
    results.check(
        format!("{name} counts every NET_RX softirq"),
        (least..=most).contains(&counted),
        || format!("{counted}, the kernel: {least} to {most}"),
    );
    let summary = ours::summary(output);
    let Some(packets) = summary.as_ref().and_then(ours::packets) else { return };
    results.check(format!("{name} counts every packet"), packets >= sent, || {
        format!("{packets} of {sent}")
    });
}
