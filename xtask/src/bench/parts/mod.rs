//! What is measured, one file each.

use super::{
    contenders::{Contender, ours},
    results::Results,
    tracer::Said,
};

pub(crate) mod files;
pub(crate) mod per_event;
pub(crate) mod rate;
pub(crate) mod rows;
pub(crate) mod scale;
pub(crate) mod tail;
pub(crate) mod whole_run;

/// Checks what a contender says it has counted: ours against the kernel's own count of softirqs
/// and the packets that were sent, others for having counted at all.
fn check_counts(contender: &Contender, said: &Said, sent: u64, results: &mut Results) {
    let name = contender.name;
    let Some(seen) = contender.seen(said) else { return };
    results.check(format!("{name} counts"), seen > 0, || "it counted nothing".to_owned());
    if !contender.is_ours() {
        return;
    }
    let (least, most) = (said.least, said.most);
    results.check(
        format!("{name} counts every NET_RX softirq"),
        (least..=most).contains(&seen),
        || format!("{seen}, the kernel: {least} to {most}"),
    );
    let summary = ours::summary(said);
    let Some(packets) = summary.as_ref().and_then(ours::packets) else { return };
    results.check(format!("{name} counts every packet"), packets >= sent, || {
        format!("{packets} of {sent}")
    });
}
