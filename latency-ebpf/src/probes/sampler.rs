//! Samples kernel stacks of stalls, driven by perf's clock on each CPU.

use aya_ebpf::{
    EbpfContext, helpers::generated::bpf_get_stack, macros::perf_event, programs::PerfEventContext,
};
use latency_common::{
    cpu_state::SAMPLE_RECORDS,
    stage::Stage,
    stall_record::{FRAMES, RecordKind},
};

use crate::bpf::{
    atomic::add,
    clock::now_ns,
    config::{self, is_disabled},
    cpu::Cpu,
    stalls::{reserve_sample, wake, write_task},
};

/// Runs at each tick of `PERF_COUNT_SW_CPU_CLOCK`, an hrtimer: not while interrupts are off.
#[perf_event]
pub(crate) fn sample_stall(ctx: PerfEventContext) -> u32 {
    try_sample_stall(&ctx);
    0
}

#[inline(always)]
fn try_sample_stall(ctx: &PerfEventContext) -> Option<()> {
    let cpu = Cpu::current()?;
    let now = now_ns();
    // Each tick is kept: the reader tells from the gaps when this CPU could not be interrupted.
    let previous_tick = cpu.state.last_tick_ns;
    cpu.state.last_tick_ns = now;
    let since = in_progress_since(&cpu)?; // Normal: nothing is in progress.
    if now.saturating_sub(since) < config::SAMPLE_AFTER_NS.load() {
        return None; // Normal: too short so far to become a stall.
    }
    let Some(mut entry) = reserve_sample() else {
        add(&mut cpu.state.records[SAMPLE_RECORDS].dropped, 1);
        return None;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is ours until it is submitted. Frames beyond the depth hold old ring-buffer
    // contents; the reader stops at the depth.
    unsafe {
        (*record).kind = RecordKind::Sample as u32;
        (*record).cpu = cpu.id;
        (*record).at_ns = now;
        (*record).since_ns = since;
        (*record).previous_tick_ns = previous_tick;
        write_task(&raw mut (*record).task);
        let frames = (&raw mut (*record).frames).cast();
        let bytes = bpf_get_stack(ctx.as_ptr(), frames, (8 * FRAMES) as u32, 0);
        (*record).depth = if bytes > 0 { bytes as u64 / 8 } else { 0 };
    }
    entry.submit(wake());
    add(&mut cpu.state.records[SAMPLE_RECORDS].submitted, 1);
    Some(())
}

/// Start of the longest span in progress: a wait for NET_RX, a run of it, or a NAPI poll outside a
/// run.
#[inline(always)]
fn in_progress_since(cpu: &Cpu) -> Option<u64> {
    let state = &cpu.state;
    let mut oldest = u64::MAX;
    for (stage, start) in [
        (Stage::RxWait, state.raised_ns),
        (Stage::NetRx, state.net_rx_start_ns),
        (Stage::NapiPoll, state.poll_start_ns),
    ] {
        if !is_disabled(stage) && start != 0 && start < oldest {
            oldest = start;
        }
    }
    (oldest != u64::MAX).then_some(oldest)
}
