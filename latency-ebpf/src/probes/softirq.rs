//! Stages `rx_wait`, `net_rx` and `softirq`.

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use latency_common::{
    row_layout::{CPU_ROWS, CpuRow},
    stage::{NET_RX_VECTOR, Stage, VECTORS},
};

use crate::bpf::{
    clock::{jiffies, now_ns},
    config::{self, by_tracepoint, is_disabled, is_on},
    cpu::Cpu,
    histogram::record,
    interference::note_interference,
    span::Span,
};
use crate::probes::preemption::run_starts;

/// `softirq_raise(unsigned int vec_nr)`
///
/// <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/irq.h#L156>
#[raw_tracepoint(tracepoint = "softirq_raise")]
pub(crate) fn softirq_raise(ctx: RawTracePointContext) -> i32 {
    try_softirq_raise(&ctx);
    0
}

#[inline(always)]
fn try_softirq_raise(ctx: &RawTracePointContext) -> Option<()> {
    if ctx.arg::<u32>(0) != NET_RX_VECTOR {
        return None; // Normal: another vector.
    }
    let mut cpu = Cpu::current()?;
    if cpu.state.raised_ns == 0 {
        // First raise since the last entry: the wait starts here. Later raises are ignored.
        cpu.state.raised_ns = now_ns();
        *cpu.started(Stage::RxWait) += 1;
        cpu.state.raises = 0;
        cpu.state.raise_irq_plus_one =
            if cpu.state.irq_start_ns == 0 { 0 } else { cpu.state.irq.wrapping_add(1) };
    }
    cpu.state.raises += 1;
    Some(())
}

/// `softirq_entry(unsigned int vec_nr)`
///
/// <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/irq.h#L128>
#[raw_tracepoint(tracepoint = "softirq_entry")]
pub(crate) fn softirq_entry(ctx: RawTracePointContext) -> i32 {
    try_softirq_entry(&ctx);
    0
}

#[inline(always)]
fn try_softirq_entry(ctx: &RawTracePointContext) -> Option<()> {
    let vector = ctx.arg::<u32>(0);
    if vector != NET_RX_VECTOR {
        return vector_starts(vector);
    }
    let mut cpu = Cpu::current()?;
    // Clear the stamp before reading the clock: a raise that arrives in between then starts the
    // next wait instead of being lost.
    let raised = cpu.state.raised_ns;
    if raised != 0 {
        // Do not clear unconditionally: an IRQ may have stamped a new raise since the read above.
        cpu.state.raised_ns = 0;
    }
    // A run that several raised may poll first what any of them scheduled.
    cpu.state.run_irq_plus_one =
        if raised != 0 && cpu.state.raises == 1 { cpu.state.raise_irq_plus_one } else { 0 };
    let now = now_ns(); // One stamp: the wait ends where the run starts.
    cpu.state.net_rx_run.wait_ns = 0;
    if is_on(Stage::RxWait) {
        if raised == 0 {
            // Raised before the probes were attached, or after the kernel cleared the pending bit
            // for the previous run and before its entry, and so counted in the previous wait.
            if !is_disabled(Stage::RxWait) {
                cpu.ledger(Stage::RxWait).unmatched_end += 1;
            }
        } else {
            cpu.state.net_rx_run.wait_ns = now.saturating_sub(raised);
            let row = cpu.row(CpuRow::RxWait);
            record(
                &mut cpu,
                Span { stage: Stage::RxWait, row, start_ns: raised, end_ns: now, work: 0 },
            );
        }
    }
    if by_tracepoint(Stage::NetRx) {
        net_rx_starts(&mut cpu, now);
    }
    if by_tracepoint(Stage::NapiPoll) {
        cpu.state.poll_start_ns = now;
    }
    Some(())
}

/// `softirq_exit(unsigned int vec_nr)`
///
/// <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/irq.h#L142>
#[raw_tracepoint(tracepoint = "softirq_exit")]
pub(crate) fn softirq_exit(ctx: RawTracePointContext) -> i32 {
    try_softirq_exit(&ctx);
    0
}

#[inline(always)]
fn try_softirq_exit(ctx: &RawTracePointContext) -> Option<()> {
    let vector = ctx.arg::<u32>(0);
    if vector != NET_RX_VECTOR {
        return vector_ends(vector);
    }
    let mut cpu = Cpu::current()?;
    if by_tracepoint(Stage::NapiPoll) {
        cpu.state.poll_start_ns = 0;
    }
    if by_tracepoint(Stage::NetRx) {
        let now = run_end(&cpu);
        net_rx_ends(&mut cpu, now);
    }
    Some(())
}

/// End of the run of NET_RX that is exiting. To save a clock reading, this is the end of its last
/// poll, unless jiffies changed since then: a remainder shorter than a tick is omitted.
#[inline(always)]
fn run_end(cpu: &Cpu) -> u64 {
    let state = &cpu.state;
    if !is_on(Stage::NapiPoll) || state.net_rx_run.polls == 0 || state.poll_end_jiffies != jiffies()
    {
        return now_ns();
    }
    state.poll_end_ns
}

/// `static void net_rx_action(void)`, until 6.9 `(struct softirq_action *h)`
///
/// <https://elixir.bootlin.com/linux/v6.12/source/net/core/dev.c#L6979>
#[fentry(function = "net_rx_action")]
pub(crate) fn net_rx_action_fentry(_ctx: FEntryContext) -> i32 {
    net_rx_probe_starts();
    0
}

/// The return of `net_rx_action`.
#[fexit(function = "net_rx_action")]
pub(crate) fn net_rx_action_fexit(_ctx: FExitContext) -> i32 {
    net_rx_probe_ends();
    0
}

/// `static void net_rx_action(void)`
#[kprobe(function = "net_rx_action")]
pub(crate) fn net_rx_action_kprobe(_ctx: ProbeContext) -> u32 {
    net_rx_probe_starts();
    0
}

/// The return of `net_rx_action`.
#[kretprobe(function = "net_rx_action")]
pub(crate) fn net_rx_action_kretprobe(_ctx: RetProbeContext) -> u32 {
    net_rx_probe_ends();
    0
}

#[inline(always)]
fn net_rx_probe_starts() -> Option<()> {
    net_rx_starts(&mut Cpu::current()?, now_ns());
    Some(())
}

#[inline(always)]
fn net_rx_probe_ends() -> Option<()> {
    net_rx_ends(&mut Cpu::current()?, now_ns());
    Some(())
}

#[inline(always)]
fn net_rx_starts(cpu: &mut Cpu, now: u64) {
    let open = cpu.state.net_rx_start_ns != 0;
    cpu.state.net_rx_start_ns = now;
    let net_rx_run = &mut cpu.state.net_rx_run;
    net_rx_run.polls = 0;
    net_rx_run.more_polls_ns = 0;
    net_rx_run.collapse_calls = 0;
    net_rx_run.collapse_ns = 0;
    run_starts(cpu);
    *cpu.started(Stage::NetRx) += 1;
    if open {
        cpu.ledger(Stage::NetRx).unmatched_start += 1;
    }
}

#[inline(always)]
fn net_rx_ends(cpu: &mut Cpu, now: u64) {
    let start_ns = cpu.state.net_rx_start_ns;
    if start_ns == 0 {
        // Started before the probes were attached: its duration would be the time since boot.
        cpu.ledger(Stage::NetRx).unmatched_end += 1;
        return;
    }
    cpu.state.net_rx_start_ns = 0;
    // If NET_RX was raised again during this run, the next run waits for the end of this one.
    note_interference(cpu, NET_RX_VECTOR as usize, start_ns, now);
    let row = cpu.row(CpuRow::NetRx);
    record(cpu, Span { stage: Stage::NetRx, row, start_ns, end_ns: now, work: 0 });
}

/// Vectors do not interrupt one another on a CPU, so they share one stamp. It is set if the stage
/// is timed or NET_RX is waiting; otherwise it is 0, which is before any wait.
#[inline(always)]
fn vector_starts(vector: u32) -> Option<()> {
    let mut cpu = Cpu::current()?;
    let timed = is_on(Stage::Softirq) && !is_disabled(Stage::Softirq);
    cpu.state.vector_start_ns = if timed || cpu.state.raised_ns != 0 { now_ns() } else { 0 };
    if timed {
        let open = cpu.state.vector_plus_one != 0;
        cpu.state.vector_plus_one = vector + 1;
        *cpu.started(Stage::Softirq) += 1;
        if open {
            cpu.ledger(Stage::Softirq).unmatched_start += 1;
        }
    }
    Some(())
}

#[inline(always)]
fn vector_ends(vector: u32) -> Option<()> {
    let mut cpu = Cpu::current()?;
    let timed = is_on(Stage::Softirq) && !is_disabled(Stage::Softirq);
    if !timed && cpu.state.raised_ns == 0 {
        return None; // Normal: its duration is not needed.
    }
    let (start_ns, end_ns) = (cpu.state.vector_start_ns, now_ns());
    note_interference(&mut cpu, vector as usize, start_ns, end_ns);
    if !timed {
        return Some(());
    }
    if cpu.state.vector_plus_one != vector + 1 || vector >= VECTORS {
        cpu.ledger(Stage::Softirq).unmatched_end += 1;
        return None;
    }
    cpu.state.vector_plus_one = 0;
    let row = cpu.id * config::ROWS_PER_CPU.load() + CPU_ROWS + vector;
    record(&mut cpu, Span { stage: Stage::Softirq, row, start_ns, end_ns, work: 0 });
    Some(())
}
