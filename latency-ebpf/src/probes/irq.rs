//! Stage `irq`. Handlers run with interrupts off, so they do not interrupt one another on a CPU.

use aya_ebpf::{
    EbpfContext,
    macros::{kprobe, kretprobe, raw_tracepoint},
    programs::{ProbeContext, RawTracePointContext, RetProbeContext},
};
use latency_common::{cpu_state::HARD_IRQ_SOURCE, stage::Stage};

use crate::bpf::{
    clock::now_ns,
    cpu::Cpu,
    histogram::record,
    interference::{note_interference, note_irq_in_run},
    offsets::{self, read_field},
    slots::irq_row,
    span::Span,
};

/// `irq_handler_entry(int irq, struct irqaction *action)`
///
/// A shared IRQ has several actions; each is one event.
///
/// <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/irq.h#L53>
#[raw_tracepoint(tracepoint = "irq_handler_entry")]
pub(crate) fn irq_handler_entry(ctx: RawTracePointContext) -> i32 {
    irq_starts(ctx.arg(0));
    0
}

/// `irq_handler_exit(int irq, struct irqaction *action, int ret)`
///
/// <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/irq.h#L84>
#[raw_tracepoint(tracepoint = "irq_handler_exit")]
pub(crate) fn irq_handler_exit(ctx: RawTracePointContext) -> i32 {
    irq_ends(&ctx);
    0
}

/// `irqreturn_t __handle_irq_event_percpu(struct irq_desc *desc)`
///
/// <https://elixir.bootlin.com/linux/v6.12/source/kernel/irq/handle.c#L139>
#[kprobe(function = "__handle_irq_event_percpu")]
pub(crate) fn handle_irq_event_kprobe(ctx: ProbeContext) -> u32 {
    try_handle_irq_event(&ctx);
    0
}

#[inline(always)]
fn try_handle_irq_event(ctx: &ProbeContext) -> Option<()> {
    irq_starts(read_field(ctx.arg(0)?, &offsets::DESC_IRQ)?)
}

/// The return of `__handle_irq_event_percpu`.
#[kretprobe(function = "__handle_irq_event_percpu")]
pub(crate) fn handle_irq_event_kretprobe(ctx: RetProbeContext) -> u32 {
    irq_ends(&ctx);
    0
}

#[inline(always)]
fn irq_starts(irq: u32) -> Option<()> {
    let mut cpu = Cpu::current()?;
    let open = cpu.state.irq_start_ns != 0;
    cpu.state.irq = irq;
    cpu.state.irq_start_ns = now_ns();
    *cpu.started(Stage::Irq) += 1;
    if open {
        cpu.ledger(Stage::Irq).unmatched_start += 1;
    }
    Some(())
}

#[inline(always)]
fn irq_ends(ctx: &impl EbpfContext) -> Option<()> {
    let mut cpu = Cpu::current()?;
    let start_ns = cpu.state.irq_start_ns;
    if start_ns == 0 {
        cpu.ledger(Stage::Irq).unmatched_end += 1;
        return None;
    }
    let end_ns = now_ns();
    cpu.state.irq_start_ns = 0;
    note_interference(&mut cpu, HARD_IRQ_SOURCE, start_ns, end_ns);
    note_irq_in_run(&mut cpu, start_ns, end_ns);
    let irq = cpu.state.irq;
    let row = irq_row(ctx, &mut cpu, irq);
    record(&mut cpu, Span { stage: Stage::Irq, row, start_ns, end_ns, work: 0 });
    Some(())
}
