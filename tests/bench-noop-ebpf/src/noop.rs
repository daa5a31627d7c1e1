//! One no-op program on each hook of a NET_RX run, which reads the clock or returns at once.

use aya_ebpf::{
    Global, helpers::generated::bpf_ktime_get_ns, macros::raw_tracepoint,
    programs::RawTracePointContext,
};

/// One bit per hook, in the order raise, entry, poll, exit. If set, the hook's program reads the
/// clock once. Frozen before loading, so that the verifier removes the branch.
#[unsafe(no_mangle)]
static CLOCK_READS: Global<u32> = Global::new(0);

/// The softirq vector of received packets (`NET_RX_SOFTIRQ`).
const NET_RX: u32 = 3;

/// `softirq_raise(unsigned int vec_nr)`
#[raw_tracepoint(tracepoint = "softirq_raise")]
pub(crate) fn noop_raise(ctx: RawTracePointContext) -> i32 {
    read_clock(0, ctx.arg(0))
}

/// `softirq_entry(unsigned int vec_nr)`
#[raw_tracepoint(tracepoint = "softirq_entry")]
pub(crate) fn noop_entry(ctx: RawTracePointContext) -> i32 {
    read_clock(1, ctx.arg(0))
}

/// `napi_poll(struct napi_struct *napi, int work, int budget)`
#[raw_tracepoint(tracepoint = "napi_poll")]
pub(crate) fn noop_poll(_ctx: RawTracePointContext) -> i32 {
    read_clock(2, NET_RX)
}

/// `softirq_exit(unsigned int vec_nr)`
#[raw_tracepoint(tracepoint = "softirq_exit")]
pub(crate) fn noop_exit(ctx: RawTracePointContext) -> i32 {
    read_clock(3, ctx.arg(0))
}

#[inline(always)]
fn read_clock(hook: u32, vector: u32) -> i32 {
    if CLOCK_READS.load() & 1 << hook != 0 && vector == NET_RX {
        // SAFETY: the helper takes no argument.
        let _ = unsafe { bpf_ktime_get_ns() };
    }
    0
}

/// Allows calls to GPL-only helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
