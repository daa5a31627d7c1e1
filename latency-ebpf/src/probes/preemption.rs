//! Tasks that run in the middle of NET_RX, on kernels whose softirqs can be preempted (PREEMPT_RT).
//!
//! Elsewhere nothing here is attached, and the verifier removes what the stages call.

use aya_ebpf::{
    helpers::generated::bpf_get_current_task, macros::raw_tracepoint,
    programs::RawTracePointContext,
};

use crate::bpf::{
    clock::now_ns, config::PREEMPTIBLE_SOFTIRQS, cpu::Cpu, interference::add_within,
    stalls::write_task,
};

/// Notes the task that a run of NET_RX starts in. The kernel lets no other task of the same CPU run
/// softirqs before it has finished.
#[inline(always)]
pub(crate) fn run_starts(cpu: &mut Cpu) {
    if PREEMPTIBLE_SOFTIRQS.load() != 0 {
        // SAFETY: the helper takes no argument.
        cpu.state.run_task = unsafe { bpf_get_current_task() };
        cpu.state.run_left_ns = 0;
    }
}

/// `sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next, ...)`: the
/// current task is still `prev`.
///
/// <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/sched.h#L222>
#[raw_tracepoint(tracepoint = "sched_switch")]
pub(crate) fn sched_switch(ctx: RawTracePointContext) -> i32 {
    try_sched_switch(&ctx);
    0
}

#[inline(always)]
fn try_sched_switch(ctx: &RawTracePointContext) -> Option<()> {
    let mut cpu = Cpu::current()?;
    if cpu.state.net_rx_start_ns == 0 {
        return None; // Normal: no run is in progress.
    }
    let now = now_ns();
    // SAFETY: the helper takes no argument.
    let previous = unsafe { bpf_get_current_task() };
    if previous != cpu.state.run_task && cpu.state.run_left_ns != 0 {
        note_task(&mut cpu, now);
    }
    let is_back = ctx.arg::<u64>(2) == cpu.state.run_task;
    cpu.state.run_left_ns = if is_back { 0 } else { now };
    Some(())
}

/// Adds the stay of the current task, which leaves the CPU now, to the run that it preempted.
#[inline(always)]
fn note_task(cpu: &mut Cpu, now: u64) {
    let (run_start_ns, since_ns) = (cpu.state.net_rx_start_ns, cpu.state.run_left_ns);
    let tasks = &mut cpu.state.tasks_in_run;
    if tasks.time.span_start_ns != run_start_ns {
        tasks.longest_ns = 0;
    }
    add_within(&mut tasks.time, run_start_ns, since_ns, now);
    let ns = now.saturating_sub(since_ns);
    if ns >= tasks.longest_ns {
        tasks.longest_ns = ns;
        // SAFETY: the field is ours.
        unsafe { write_task(&raw mut tasks.longest) };
    }
}
