//! The benchmarks, one file each.

use super::{
    results::Results,
    tools::{ours, tool::Tool},
    tracer::Output,
};

pub(crate) mod files;
pub(crate) mod per_event;
pub(crate) mod rate;
pub(crate) mod rows;
pub(crate) mod scale;
pub(crate) mod serve;
pub(crate) mod single_run;
pub(crate) mod tail;

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
