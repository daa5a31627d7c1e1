//! The one clock: `CLOCK_MONOTONIC`. Reading it is most of what a probe costs.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;

/// Nanoseconds since boot, time in suspend not counted.
#[inline(always)]
pub(super) fn now_ns() -> u64 {
    // SAFETY: the helper takes no argument and may be called from any program type used here.
    unsafe { bpf_ktime_get_ns() }
}
