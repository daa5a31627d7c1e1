//! Interference: what runs on a CPU while NET_RX waits for it, by softirq vector, and hard IRQs;
//! and the hard IRQs that interrupt a run of NET_RX.

use latency_common::{
    cpu_state::{INTERFERENCE_SOURCES, TimeWithin},
    stage::Stage,
};

use super::{config::is_on, cpu::Cpu};

/// Adds the part of `start_ns` to `end_ns`, in which `source` ran, that NET_RX was waiting. A start
/// of 0 is before any wait.
///
/// Costs one comparison if NET_RX is not waiting.
#[inline(always)]
pub(crate) fn note_interference(cpu: &mut Cpu, source: usize, start_ns: u64, end_ns: u64) {
    let wait_start_ns = cpu.state.raised_ns;
    if !is_on(Stage::RxWait) || wait_start_ns == 0 || source >= INTERFERENCE_SOURCES {
        return;
    }
    add_within(&mut cpu.state.interference[source], wait_start_ns, start_ns, end_ns);
}

/// Adds a hard IRQ's handler to the run of NET_RX that it interrupted, if there is one.
#[inline(always)]
pub(crate) fn note_irq_in_run(cpu: &mut Cpu, start_ns: u64, end_ns: u64) {
    let run_start_ns = cpu.state.net_rx_start_ns;
    if run_start_ns != 0 {
        add_within(&mut cpu.state.irqs_in_run, run_start_ns, start_ns, end_ns);
    }
}

/// Adds the part of `start_ns` to `end_ns` after `span_start_ns`.
#[inline(always)]
pub(crate) fn add_within(time: &mut TimeWithin, span_start_ns: u64, start_ns: u64, end_ns: u64) {
    if time.span_start_ns != span_start_ns {
        *time = TimeWithin { span_start_ns, ns: 0, runs: 0 };
    }
    let start = if start_ns > span_start_ns { start_ns } else { span_start_ns };
    if end_ns > start {
        time.ns += end_ns - start;
    }
    time.runs += 1;
}
