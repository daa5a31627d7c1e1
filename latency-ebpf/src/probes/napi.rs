//! Stage `napi_poll`, and the RX queue that packets of a NAPI instance carry.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_get_current_task,
    macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use latency_common::{
    cpu_state::{POLLS, PollSpan},
    stage::Stage,
};

use crate::bpf::{
    clock::{jiffies, now_ns},
    cpu::Cpu,
    histogram::record,
    offsets::{self, load_field, read_field},
    slots::{napi_id, napi_row, note_irq, note_rx_queue},
    span::Span,
};

/// `napi_poll(struct napi_struct *napi, int work, int budget)`: fires after each poll.
///
/// The start is the end of the previous poll, or the softirq's entry: what `net_rx_action` does
/// between polls counts as part of the later one. Outside of NET_RX, see [`outside_poll`].
///
/// <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/napi.h#L14>
#[raw_tracepoint(tracepoint = "napi_poll")]
pub(crate) fn napi_poll(ctx: RawTracePointContext) -> i32 {
    try_napi_poll(&ctx);
    0
}

#[inline(always)]
fn try_napi_poll(ctx: &RawTracePointContext) -> Option<()> {
    let mut cpu = Cpu::current()?;
    let start_ns = cpu.state.poll_start_ns;
    if start_ns == 0 {
        return outside_poll(ctx, &mut cpu);
    }
    let end_ns = now_ns();
    cpu.state.poll_start_ns = end_ns;
    *cpu.started(Stage::NapiPoll) += 1;
    record_poll(ctx, &mut cpu, ctx.arg(0), napi_id, start_ns, end_ns, ctx.arg(1));
    Some(())
}

/// A poll outside NET_RX, by threaded NAPI or a busy-polling process. One that used up its budget is
/// followed at once by another of the same task. If the task did not leave the CPU in between, the
/// start is the end of the previous poll; otherwise it is unknown.
#[inline(always)]
fn outside_poll(ctx: &RawTracePointContext, cpu: &mut Cpu) -> Option<()> {
    let (work, budget): (u32, u32) = (ctx.arg(1), ctx.arg(2));
    let previous_ns = cpu.state.outside_poll_ns;
    let polls_on = work >= budget;
    if previous_ns == 0 && !polls_on {
        cpu.ledger(Stage::NapiPoll).unmatched_end += 1;
        return None;
    }
    // SAFETY: the helper takes no argument.
    let task = unsafe { bpf_get_current_task() };
    let switches = times_off_cpu(task);
    let is_same = previous_ns != 0
        && cpu.state.outside_poll_task == task
        && switches == Some(cpu.state.outside_poll_switches);
    let end_ns = now_ns();
    cpu.state.outside_poll_ns = if polls_on && switches.is_some() { end_ns } else { 0 };
    cpu.state.outside_poll_task = task;
    cpu.state.outside_poll_switches = switches.unwrap_or(0);
    if !is_same {
        cpu.ledger(Stage::NapiPoll).unmatched_end += 1;
        return None;
    }
    *cpu.started(Stage::NapiPoll) += 1;
    record_poll(ctx, cpu, ctx.arg(0), napi_id, previous_ns, end_ns, work);
    Some(())
}

/// How often the task left a CPU; `None`: the kernel's struct has no such fields.
#[inline(always)]
fn times_off_cpu(task: u64) -> Option<u64> {
    let voluntary = read_field::<u64>(task, &offsets::TASK_NVCSW)?;
    Some(voluntary.wrapping_add(read_field::<u64>(task, &offsets::TASK_NIVCSW)?))
}

/// `static int __napi_poll(struct napi_struct *n, bool *repoll)`
///
/// <https://elixir.bootlin.com/linux/v6.12/source/net/core/dev.c#L6726>
#[fentry(function = "__napi_poll")]
pub(crate) fn napi_poll_fentry(ctx: FEntryContext) -> i32 {
    poll_starts(ctx.arg(0));
    0
}

/// The return of `__napi_poll`: the number of packets.
#[fexit(function = "__napi_poll")]
pub(crate) fn napi_poll_fexit(ctx: FExitContext) -> i32 {
    // SAFETY: the argument comes from the context.
    let id = |napi| unsafe { load_field(napi, &offsets::NAPI_ID) };
    // The traced function has two arguments; its return value follows them.
    poll_ends(&ctx, Some(ctx.arg(0)), id, ctx.arg(2));
    0
}

/// `static int __napi_poll(struct napi_struct *n, bool *repoll)`
#[kprobe(function = "__napi_poll")]
pub(crate) fn napi_poll_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(napi) = ctx.arg(0) {
        poll_starts(napi);
    }
    0
}

/// The return of `__napi_poll`: the number of packets.
#[kretprobe(function = "__napi_poll")]
pub(crate) fn napi_poll_kretprobe(ctx: RetProbeContext) -> u32 {
    poll_ends(&ctx, None, napi_id, ctx.ret());
    0
}

#[inline(always)]
fn poll_starts(napi: u64) -> Option<()> {
    let mut cpu = Cpu::current()?;
    let open = cpu.state.poll_start_ns != 0;
    cpu.state.poll_napi = napi;
    cpu.state.poll_start_ns = now_ns();
    *cpu.started(Stage::NapiPoll) += 1;
    if open {
        cpu.ledger(Stage::NapiPoll).unmatched_start += 1;
    }
    Some(())
}

/// `napi` is the instance; `None`: the one that was noted at the start.
#[inline(always)]
fn poll_ends(
    ctx: &impl EbpfContext,
    napi: Option<u64>,
    id: impl FnOnce(u64) -> Option<u32>,
    work: u32,
) -> Option<()> {
    let mut cpu = Cpu::current()?;
    let start_ns = cpu.state.poll_start_ns;
    if start_ns == 0 {
        cpu.ledger(Stage::NapiPoll).unmatched_end += 1;
        return None;
    }
    let end_ns = now_ns();
    cpu.state.poll_start_ns = 0;
    let napi = napi.unwrap_or(cpu.state.poll_napi);
    record_poll(ctx, &mut cpu, napi, id, start_ns, end_ns, work);
    Some(())
}

#[inline(always)]
fn record_poll(
    ctx: &impl EbpfContext,
    cpu: &mut Cpu,
    napi: u64,
    id: impl FnOnce(u64) -> Option<u32>,
    start_ns: u64,
    end_ns: u64,
    work: u32,
) {
    cpu.state.poll_end_ns = end_ns;
    cpu.state.poll_end_jiffies = jiffies();
    let row = napi_row(ctx, cpu, napi, id);
    // The first one of a run, which threads and busy-polling processes have not.
    if cpu.state.net_rx_run.polls == 0 && cpu.state.net_rx_start_ns != 0 {
        note_irq(cpu, row);
    }
    note_poll(cpu, row, end_ns.saturating_sub(start_ns), work);
    record(cpu, Span { stage: Stage::NapiPoll, row, start_ns, end_ns, work });
}

/// Adds a poll to the breakdown of the run of `net_rx_action`. Of the polls after the seventh, the
/// longest is kept and the others are summed.
#[inline(always)]
fn note_poll(cpu: &mut Cpu, row: u32, ns: u64, work: u32) {
    const LAST: usize = POLLS - 1;
    let net_rx_run = &mut cpu.state.net_rx_run;
    let number = net_rx_run.polls as usize;
    net_rx_run.polls += 1;
    let span = PollSpan { ns, row, work };
    if number < POLLS {
        net_rx_run.poll[number & LAST] = span;
    } else if ns > net_rx_run.poll[LAST].ns {
        net_rx_run.more_polls_ns += net_rx_run.poll[LAST].ns;
        net_rx_run.poll[LAST] = span;
    } else {
        net_rx_run.more_polls_ns += ns;
    }
}

/// `napi_gro_receive_entry(const struct sk_buff *skb)`, also attached to `napi_gro_frags_entry`.
///
/// Attached only while some queue's identity is unknown.
///
/// <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/net.h#L226>
#[raw_tracepoint(tracepoint = "napi_gro_receive_entry")]
pub(crate) fn napi_gro_receive_entry(ctx: RawTracePointContext) -> i32 {
    try_napi_gro_receive_entry(&ctx);
    0
}

#[inline(always)]
fn try_napi_gro_receive_entry(ctx: &RawTracePointContext) -> Option<()> {
    let skb = ctx.arg::<u64>(0);
    let napi_id = read_field::<u32>(skb, &offsets::SKB_NAPI_ID)?;
    let queue_mapping = read_field::<u16>(skb, &offsets::SKB_QUEUE_MAPPING)?;
    note_rx_queue(napi_id, queue_mapping);
    Some(())
}
