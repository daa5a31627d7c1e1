//! Stage `irq`. Handlers run with interrupts off, so they do not interrupt one another on a CPU.

use aya_ebpf::{
    EbpfContext,
    macros::{kprobe, kretprobe, raw_tracepoint},
    programs::{ProbeContext, RawTracePointContext, RetProbeContext},
};
use latency_common::{record::HARD_IRQS, stage::Stage};

use super::super::{
    clock::now_ns,
    config::{self, read_field},
    cpu::Cpu,
    holders::note_holder,
    record::{Interval, record},
    slots::irq_row,
};

/// `irq_handler_entry(int irq, struct irqaction *action)`
///
/// A shared IRQ has several actions; each is one interval.
///
/// <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/irq.h#L53>
#[raw_tracepoint(tracepoint = "irq_handler_entry")]
pub(crate) fn irq_handler_entry(ctx: RawTracePointContext) -> i32 {
    irq_begins(ctx.arg(0));
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
    irq_begins(read_field(ctx.arg(0)?, &config::DESC_IRQ)?)
}

/// The return of `__handle_irq_event_percpu`.
#[kretprobe(function = "__handle_irq_event_percpu")]
pub(crate) fn handle_irq_event_kretprobe(ctx: RetProbeContext) -> u32 {
    irq_ends(&ctx);
    0
}

#[inline(always)]
fn irq_begins(irq: u32) -> Option<()> {
    let mut cpu = Cpu::current()?;
    let open = cpu.state.irq_begin_ns != 0;
    cpu.state.irq = irq;
    cpu.state.irq_begin_ns = now_ns();
    *cpu.begins(Stage::Irq) += 1;
    if open {
        cpu.ledger(Stage::Irq).begins_without_end += 1;
    }
    Some(())
}

#[inline(always)]
fn irq_ends(ctx: &impl EbpfContext) -> Option<()> {
    let mut cpu = Cpu::current()?;
    let begin_ns = cpu.state.irq_begin_ns;
    if begin_ns == 0 {
        cpu.ledger(Stage::Irq).ends_without_begin += 1;
        return None;
    }
    let end_ns = now_ns();
    cpu.state.irq_begin_ns = 0;
    note_holder(&mut cpu, HARD_IRQS, begin_ns, end_ns);
    let irq = cpu.state.irq;
    let row = irq_row(ctx, &mut cpu, irq);
    record(&mut cpu, Interval { stage: Stage::Irq, row, begin_ns, end_ns, work: 0 });
    Some(())
}
