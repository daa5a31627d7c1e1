//! Stage `tcp_collapse`.
//!
//! The function runs in NET_RX, and in processes that process a socket's backlog. There it may be
//! interrupted by another call in NET_RX and may migrate to another CPU. So its start is kept per
//! task (by address: idle has PID 0 on every CPU), two deep, and counters are updated atomically.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_get_current_task,
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use aya_log_ebpf::warn;
use latency_common::{
    collapse_call::{CollapseCall, CollapseStack},
    row_layout::CpuRow,
    stage::Stage,
};

use crate::bpf::{
    atomic::add, clock::now_ns, config, cpu::Cpu, histogram::record, maps::COLLAPSE_CALLS, sockets,
    span::Span, stalls::send_collapse,
};

/// `static void tcp_collapse(struct sock *sk, struct sk_buff_head *list, struct rb_root *root,
/// struct sk_buff *head, struct sk_buff *tail, u32 start, u32 end)`
///
/// <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/tcp_input.c#L5308>
#[fentry(function = "tcp_collapse")]
pub(crate) fn tcp_collapse_fentry(ctx: FEntryContext) -> i32 {
    collapse_starts(&ctx, ctx.arg(0), ctx.arg(1));
    0
}

/// The return of `tcp_collapse`.
#[fexit(function = "tcp_collapse")]
pub(crate) fn tcp_collapse_fexit(ctx: FExitContext) -> i32 {
    collapse_ends(&ctx);
    0
}

/// The entry of `tcp_collapse`.
#[kprobe(function = "tcp_collapse")]
pub(crate) fn tcp_collapse_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sock), Some(list)) = (ctx.arg(0), ctx.arg(1)) {
        collapse_starts(&ctx, sock, list);
    }
    0
}

/// The return of `tcp_collapse`.
#[kretprobe(function = "tcp_collapse")]
pub(crate) fn tcp_collapse_kretprobe(ctx: RetProbeContext) -> u32 {
    collapse_ends(&ctx);
    0
}

/// Address of the current task.
#[inline(always)]
fn current_task() -> u64 {
    // SAFETY: the helper takes no argument.
    unsafe { bpf_get_current_task() }
}

/// Starts a call for `sock`; `list` is its receive queue, or 0 for the out-of-order queue.
#[inline(always)]
fn collapse_starts(ctx: &impl EbpfContext, sock: u64, list: u64) -> Option<()> {
    let mut cpu = Cpu::current()?;
    add(cpu.started(Stage::TcpCollapse), 1);
    let ledger = cpu.ledger(Stage::TcpCollapse);
    let task = current_task();
    let before = sockets::state(sock);
    let out_of_order = u32::from(list == 0);
    let call = CollapseCall { start_ns: now_ns(), sock, before, out_of_order, reserved: 0 };
    if let Some(stack) = COLLAPSE_CALLS.get_ptr_mut(task) {
        // SAFETY: the pointer comes from a map lookup, and only this task's contexts use it.
        let stack = unsafe { &mut *stack };
        if stack.depth == 2 {
            add(&mut ledger.unmatched_start, 1);
        }
        stack.calls[1] = call;
        stack.depth = 2;
        return Some(());
    }
    let stack = CollapseStack { depth: 1, calls: [call, CollapseCall::NONE] };
    if COLLAPSE_CALLS.insert(task, stack, 0).is_err() {
        add(&mut ledger.unmatched_start, 1);
        warn!(ctx, "no map entry left to time a call of tcp_collapse: counted as lost");
    }
    Some(())
}

#[inline(always)]
fn collapse_ends(ctx: &impl EbpfContext) -> Option<()> {
    let end_ns = now_ns();
    let mut cpu = Cpu::current()?;
    let task = current_task();
    let Some(stack) = COLLAPSE_CALLS.get_ptr_mut(task) else {
        add(&mut cpu.ledger(Stage::TcpCollapse).unmatched_end, 1);
        return None;
    };
    // SAFETY: as in `collapse_starts`.
    let stack = unsafe { &mut *stack };
    let call = if stack.depth == 2 { stack.calls[1] } else { stack.calls[0] };
    if stack.depth == 2 {
        stack.depth = 1;
    } else {
        // Removed, not kept at depth 0: addresses of dead tasks are reused.
        let _ = COLLAPSE_CALLS.remove(task);
    }
    let start_ns = call.start_ns;
    let ns = end_ns.saturating_sub(start_ns);
    let net_rx_start = cpu.state.net_rx_start_ns;
    if net_rx_start != 0 && start_ns >= net_rx_start {
        // Inside the run of `net_rx_action`, not in a process that the run interrupted.
        cpu.state.net_rx_run.collapse_calls += 1;
        cpu.state.net_rx_run.collapse_ns += ns;
    }
    if ns >= config::COLLAPSE_THRESHOLD_NS.load() {
        let poll_row = sockets::polled_row(ctx, &mut cpu);
        let id = cpu.id;
        send_collapse(&mut cpu, end_ns, |record| {
            sockets::describe(record, id, &call, end_ns, poll_row);
        });
    }
    let row = cpu.row(CpuRow::TcpCollapse);
    record(&mut cpu, Span { stage: Stage::TcpCollapse, row, start_ns, end_ns, work: 0 });
    Some(())
}
