//! Interference: what runs on a CPU while NET_RX waits for it, by softirq vector, and hard IRQs.

use latency_common::{
    cpu_state::{INTERFERENCE_SOURCES, InterferenceTime},
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
    let time = &mut cpu.state.interference[source];
    if time.wait_start_ns != wait_start_ns {
        *time = InterferenceTime { wait_start_ns, ns: 0, runs: 0 };
    }
    let start = if start_ns > wait_start_ns { start_ns } else { wait_start_ns };
    if end_ns > start {
        time.ns += end_ns - start;
    }
    time.runs += 1;
}
