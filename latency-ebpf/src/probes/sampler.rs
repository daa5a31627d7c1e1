//! Samples kernel stacks of stalls, driven by clocks of perf on each CPU.

use aya_ebpf::{
    EbpfContext,
    bindings::{bpf_perf_event_data, bpf_perf_event_value},
    helpers::generated::{bpf_get_stack, bpf_perf_prog_read_value},
    macros::perf_event,
    programs::PerfEventContext,
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
    stalls::{SECOND_NS, reserve_sample, wake, wake_for, write_task},
};

/// Runs at each tick of `PERF_COUNT_SW_CPU_CLOCK`, an hrtimer: not while interrupts are off.
#[perf_event]
pub(crate) fn sample_stall(ctx: PerfEventContext) -> u32 {
    if let Some(mut cpu) = Cpu::current() {
        let (now, previous_tick) = (now_ns(), cpu.state.last_tick_ns);
        // Each tick is kept: the reader tells from the gaps when this CPU could not be interrupted.
        cpu.state.last_tick_ns = now;
        sample(&ctx, &mut cpu, now, previous_tick);
    }
    0
}

/// Runs at each tick of `PERF_COUNT_HW_CPU_CYCLES`, by an interrupt that on most machines cannot be
/// masked.
#[perf_event]
pub(crate) fn sample_cycles(ctx: PerfEventContext) -> u32 {
    if let Some(mut cpu) = Cpu::current() {
        let (now, previous_tick) = (now_ns(), cpu.state.last_tick_ns);
        // On a CPU that was mostly idle, perf has made the ticks come sooner.
        if now.saturating_sub(previous_tick) >= config::MIN_TICK_NS.load() {
            cpu.state.last_tick_ns = now;
            // After a while without its hardware, nothing can be told.
            let previous_tick = if has_counted(&ctx, &mut cpu) { previous_tick } else { 0 };
            sample(&ctx, &mut cpu, now, previous_tick);
        }
    }
    0
}

/// Runs at each tick of a slow clock, which CPUs have that have not stalled for a while. It is no
/// schedule: what is between its ticks is not known.
#[perf_event]
pub(crate) fn look_for_stall(ctx: PerfEventContext) -> u32 {
    if let Some(mut cpu) = Cpu::current() {
        let now = now_ns();
        let has_clock = now.saturating_sub(cpu.state.last_tick_ns) < SECOND_NS;
        if !has_clock {
            sample(&ctx, &mut cpu, now, 0);
        }
    }
    0
}

#[inline(always)]
fn sample(ctx: &PerfEventContext, cpu: &mut Cpu, now: u64, previous_tick: u64) -> Option<()> {
    let since = in_progress_since(cpu)?; // Normal: nothing is in progress.
    let age = now.saturating_sub(since);
    if age < config::SAMPLE_AFTER_NS.load() {
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
    let is_stall = age >= config::THRESHOLD_NS.load();
    entry.submit(if is_stall { wake_for(cpu, now) } else { wake() });
    add(&mut cpu.state.records[SAMPLE_RECORDS].submitted, 1);
    Some(())
}

/// Whether the clock has counted ever since the last tick: perf takes turns when events need more
/// counters than the hardware has.
#[inline(always)]
fn has_counted(ctx: &PerfEventContext, cpu: &mut Cpu) -> bool {
    let mut value = bpf_perf_event_value { counter: 0, enabled: 0, running: 0 };
    let data = ctx.as_ptr().cast::<bpf_perf_event_data>();
    let size = size_of::<bpf_perf_event_value>() as u32;
    // SAFETY: both are valid for the call.
    if unsafe { bpf_perf_prog_read_value(data, &raw mut value, size) } != 0 {
        return true;
    }
    let not_counting = value.enabled.saturating_sub(value.running);
    let before = cpu.state.not_counting_ns;
    cpu.state.not_counting_ns = not_counting;
    not_counting == before
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
