//! Who holds a CPU while NET_RX waits for it: softirq vectors and hard IRQs.

use latency_common::{
    stage::Stage,
    state::{HOLDERS, Held},
};

use super::{config::is_on, cpu::Cpu};

/// Notes that `holder` ran from `begin_ns` to `end_ns`, as far as NET_RX waits. A begin of 0 lies
/// before the wait.
///
/// Costs a comparison when NET_RX does not wait.
#[inline(always)]
pub(super) fn note_holder(cpu: &mut Cpu, holder: usize, begin_ns: u64, end_ns: u64) {
    let wait = cpu.state.raised_ns;
    if !is_on(Stage::RxWait) || wait == 0 || holder >= HOLDERS {
        return;
    }
    let held = &mut cpu.state.held[holder];
    if held.wait != wait {
        *held = Held { wait, ns: 0, runs: 0 };
    }
    let begin = if begin_ns > wait { begin_ns } else { wait };
    if end_ns > begin {
        held.ns += end_ns - begin;
    }
    held.runs += 1;
}
