//! The only clock: `CLOCK_MONOTONIC`. Reading it is most of the cost of a probe.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns};

/// Nanoseconds since boot, without time in suspend.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: the helper takes no argument and may be called from any program type used here.
    unsafe { bpf_ktime_get_ns() }
}

/// Jiffies (timer ticks of 1 to 10 ms): a load, not a call, on 64-bit machines.
#[inline(always)]
pub(crate) fn jiffies() -> u64 {
    // SAFETY: as in `now_ns`.
    unsafe { bpf_jiffies64() }
}
