//! Stage `napi_poll`, and the RX queue that packets of a NAPI instance carry.

use aya_ebpf::{
    EbpfContext,
    macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use latency_common::{
    stage::Stage,
    state::{POLLS, PollSpan},
};

use super::super::{
    clock::{jiffies, now_ns},
    config::{self, read_field},
    cpu::Cpu,
    record::{Interval, record},
    slots::{napi_row, note_rx_queue},
};

/// `napi_poll(struct napi_struct *napi, int work, int budget)`: fires after each poll.
///
/// The begin is the end of the poll before it, or the softirq's entry: what `net_rx_action`
/// does between polls counts as part of the later one.
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
    let begin_ns = cpu.state.poll_begin_ns;
    if begin_ns == 0 {
        // A poll outside NET_RX: threaded NAPI or a busy-polling process. Its begin is unknown.
        cpu.ledger(Stage::NapiPoll).ends_without_begin += 1;
        return None;
    }
    let end_ns = now_ns();
    cpu.state.poll_begin_ns = end_ns;
    *cpu.begins(Stage::NapiPoll) += 1;
    record_poll(ctx, &mut cpu, ctx.arg(0), begin_ns, end_ns, ctx.arg(1));
    Some(())
}

/// `static int __napi_poll(struct napi_struct *n, bool *repoll)`
///
/// <https://elixir.bootlin.com/linux/v6.12/source/net/core/dev.c#L6726>
#[fentry(function = "__napi_poll")]
pub(crate) fn napi_poll_fentry(ctx: FEntryContext) -> i32 {
    poll_begins(ctx.arg(0));
    0
}

/// The return of `__napi_poll`: the number of packets.
#[fexit(function = "__napi_poll")]
pub(crate) fn napi_poll_fexit(ctx: FExitContext) -> i32 {
    // The traced function has two arguments; its return value lies behind them.
    poll_ends(&ctx, ctx.arg(2));
    0
}

/// `static int __napi_poll(struct napi_struct *n, bool *repoll)`
#[kprobe(function = "__napi_poll")]
pub(crate) fn napi_poll_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(napi) = ctx.arg(0) {
        poll_begins(napi);
    }
    0
}

/// The return of `__napi_poll`: the number of packets.
#[kretprobe(function = "__napi_poll")]
pub(crate) fn napi_poll_kretprobe(ctx: RetProbeContext) -> u32 {
    poll_ends(&ctx, ctx.ret());
    0
}

#[inline(always)]
fn poll_begins(napi: u64) -> Option<()> {
    let mut cpu = Cpu::current()?;
    let open = cpu.state.poll_begin_ns != 0;
    cpu.state.poll_napi = napi;
    cpu.state.poll_begin_ns = now_ns();
    *cpu.begins(Stage::NapiPoll) += 1;
    if open {
        cpu.ledger(Stage::NapiPoll).begins_without_end += 1;
    }
    Some(())
}

#[inline(always)]
fn poll_ends(ctx: &impl EbpfContext, work: u32) -> Option<()> {
    let mut cpu = Cpu::current()?;
    let begin_ns = cpu.state.poll_begin_ns;
    if begin_ns == 0 {
        cpu.ledger(Stage::NapiPoll).ends_without_begin += 1;
        return None;
    }
    let end_ns = now_ns();
    cpu.state.poll_begin_ns = 0;
    let napi = cpu.state.poll_napi;
    record_poll(ctx, &mut cpu, napi, begin_ns, end_ns, work);
    Some(())
}

#[inline(always)]
fn record_poll(
    ctx: &impl EbpfContext,
    cpu: &mut Cpu,
    napi: u64,
    begin_ns: u64,
    end_ns: u64,
    work: u32,
) {
    cpu.state.poll_end_ns = end_ns;
    cpu.state.poll_end_jiffies = jiffies();
    let row = napi_row(ctx, cpu, napi);
    note_poll(cpu, row, end_ns.saturating_sub(begin_ns), work);
    record(cpu, Interval { stage: Stage::NapiPoll, row, begin_ns, end_ns, work });
}

/// Adds a poll to what the run of `net_rx_action` was spent in. Of those behind the seventh, the
/// longest is kept and the others are summed up.
#[inline(always)]
fn note_poll(cpu: &mut Cpu, row: u32, ns: u64, work: u32) {
    const LAST: usize = POLLS - 1;
    let cycle = &mut cpu.state.cycle;
    let number = cycle.polls as usize;
    cycle.polls += 1;
    let span = PollSpan { ns, row, work };
    if number < POLLS {
        cycle.poll[number & LAST] = span;
    } else if ns > cycle.poll[LAST].ns {
        cycle.more_polls_ns += cycle.poll[LAST].ns;
        cycle.poll[LAST] = span;
    } else {
        cycle.more_polls_ns += ns;
    }
}

/// `napi_gro_receive_entry(const struct sk_buff *skb)`, also attached to `napi_gro_frags_entry`.
///
/// Attached only while some queue's identity is not known.
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
    let napi_id = read_field::<u32>(skb, &config::SKB_NAPI_ID)?;
    let queue_mapping = read_field::<u16>(skb, &config::SKB_QUEUE_MAPPING)?;
    note_rx_queue(napi_id, queue_mapping);
    Some(())
}
