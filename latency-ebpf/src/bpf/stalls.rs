//! Sends stall records; the only sender of them. Rate-limits them per CPU.

use aya_ebpf::{
    bindings::BPF_RB_FORCE_WAKEUP,
    helpers::generated::{bpf_get_current_comm, bpf_get_current_pid_tgid},
};
use latency_common::{
    cpu_state::{COLLAPSE_RECORDS, INTERFERENCE_SOURCES, NetRxRun, TasksInRun, TimeWithin},
    stall_record::{CollapseRecord, RecordKind, SampleRecord, StallRecord},
    task_record::TaskRecord,
};

use super::{
    atomic::{add, fetch_add},
    config,
    cpu::Cpu,
    maps::{self, STALL_RECORDS},
    span::Span,
};

/// Records are limited per second; after a second without a tick, a CPU has no sampling clock.
pub(crate) const SECOND_NS: u64 = 1_000_000_000;

/// Sends a stall with the state of its CPU.
#[inline(always)]
pub(crate) fn send_stall(cpu: &mut Cpu, span: &Span) {
    let kind = span.stage as usize;
    if !admit(cpu, kind, span.end_ns) {
        return;
    }
    let Some(mut entry) = STALL_RECORDS.reserve::<StallRecord>(0) else {
        add(&mut cpu.state.records[kind].dropped, 1);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is ours until it is submitted, and every field is written before that.
    unsafe {
        (*record).kind = RecordKind::Stall as u32;
        (*record).stage = span.stage as u32;
        (*record).cpu = cpu.id;
        (*record).row = span.row;
        (*record).start_ns = span.start_ns;
        (*record).end_ns = span.end_ns;
        write_task(&raw mut (*record).task);
        const RUN_WORDS: usize = size_of::<NetRxRun>() / 8;
        copy_words::<RUN_WORDS>(
            (&raw const cpu.state.net_rx_run).cast(),
            (&raw mut (*record).net_rx_run).cast(),
        );
        const INTERFERENCE_WORDS: usize = INTERFERENCE_SOURCES * size_of::<TimeWithin>() / 8;
        copy_words::<INTERFERENCE_WORDS>(
            (&raw const cpu.state.interference).cast(),
            (&raw mut (*record).interference).cast(),
        );
        (*record).irqs_in_run = cpu.state.irqs_in_run;
        const TASKS_WORDS: usize = size_of::<TasksInRun>() / 8;
        copy_words::<TASKS_WORDS>(
            (&raw const cpu.state.tasks_in_run).cast(),
            (&raw mut (*record).tasks_in_run).cast(),
        );
        (*record).last_tick_ns = cpu.state.last_tick_ns;
    }
    entry.submit(wake_for(cpu, span.end_ns));
    add(&mut cpu.state.records[kind].submitted, 1);
}

/// Flags to submit a record of a stall with: user space starts the clock of a CPU that has none.
#[inline(always)]
pub(crate) fn wake_for(cpu: &Cpu, end_ns: u64) -> u64 {
    let has_clock = end_ns.saturating_sub(cpu.state.last_tick_ns) < SECOND_NS;
    if config::WAKE_FOR_CLOCK.load() != 0 && !has_clock {
        return u64::from(BPF_RB_FORCE_WAKEUP);
    }
    wake()
}

/// Sends the record of a slow call of `tcp_collapse`, written by `fill`.
#[inline(always)]
pub(crate) fn send_collapse(cpu: &mut Cpu, end_ns: u64, fill: impl FnOnce(*mut CollapseRecord)) {
    if !admit(cpu, COLLAPSE_RECORDS, end_ns) {
        return;
    }
    let Some(mut entry) = STALL_RECORDS.reserve::<CollapseRecord>(0) else {
        add(&mut cpu.state.records[COLLAPSE_RECORDS].dropped, 1);
        return;
    };
    fill(entry.as_mut_ptr());
    entry.submit(wake());
    add(&mut cpu.state.records[COLLAPSE_RECORDS].submitted, 1);
}

/// Reserves an entry for a sample; `None`: the ring buffer is full.
#[inline(always)]
pub(crate) fn reserve_sample() -> Option<aya_ebpf::maps::ring_buf::RingBufEntry<SampleRecord>> {
    STALL_RECORDS.reserve::<SampleRecord>(0)
}

/// Flags to submit a record with.
#[inline(always)]
pub(crate) fn wake() -> u64 {
    maps::wake_up(&STALL_RECORDS, config::RECORDS_WAKE_AT_BYTES.load())
}

/// Whether one more stall record may be sent in this second; if not, it is counted as limited.
///
/// A hard IRQ's stall may interrupt this: then the second may start twice, and no count is lost.
#[inline(always)]
fn admit(cpu: &mut Cpu, kind: usize, now: u64) -> bool {
    if now.saturating_sub(cpu.state.second_start_ns) >= SECOND_NS {
        cpu.state.second_start_ns = now;
        cpu.state.records_in_second = 0;
    }
    if fetch_add(&mut cpu.state.records_in_second, 1) >= config::RECORDS_PER_SECOND.load() {
        add(&mut cpu.state.records[kind].limited, 1);
        return false;
    }
    true
}

/// Writes the current task.
///
/// # Safety
///
/// `task` is valid for writes.
#[inline(always)]
pub(crate) unsafe fn write_task(task: *mut TaskRecord) {
    // SAFETY: as the caller promises; the helper writes the complete name.
    unsafe {
        (*task).pid = bpf_get_current_pid_tgid() as u32;
        (*task).reserved = 0;
        let comm = &raw mut (*task).comm;
        if bpf_get_current_comm(comm.cast(), size_of_val(&*comm) as u32) != 0 {
            comm.write([0; _]);
        }
    }
}

/// Copies word by word: the compiler would copy all words of an assignment by way of the stack,
/// which is small.
///
/// # Safety
///
/// Both are valid for `WORDS` words, and aligned.
#[inline(always)]
unsafe fn copy_words<const WORDS: usize>(from: *const u64, to: *mut u64) {
    for word in 0..WORDS {
        // SAFETY: as the caller promises. Volatile, or the compiler makes an assignment of it.
        unsafe { to.add(word).write_volatile(from.add(word).read()) };
    }
}
