//! Per-CPU state of the programs: start stamps of events in progress, caches, and counts.

use core::mem::offset_of;

use crate::{
    stage::{STAGES, VECTORS},
    task_record::TaskRecord,
};

/// Counts of events of one stage on one CPU that were not recorded normally. All are rare.
///
/// [`CpuState::started`] equals recorded + in progress + `unmatched_start` + `backwards`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageLedger {
    /// Ends without a start: the event started before the probes were attached, or the kernel
    /// skipped the probe at its start. Not included in the starts.
    pub unmatched_end: u64,
    /// Starts without an end: the kernel skipped the probe at the end.
    pub unmatched_start: u64,
    /// Events whose end stamp lies before their start stamp; not recorded.
    pub backwards: u64,
    /// Events recorded in the CPU's catch-all row, because no slot was left for the queue or IRQ.
    pub table_full: u64,
    /// Events too long for the last bucket; counted in it, exact in sum and maximum.
    pub clamped: u64,
    /// Events sent through the ring buffer.
    pub ring_submitted: u64,
    /// Events not sent: the ring buffer was full.
    pub ring_dropped: u64,
}

/// Counts of one kind of record in the stall ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordLedger {
    /// Sent.
    pub submitted: u64,
    /// Not sent: the ring buffer was full.
    pub dropped: u64,
    /// Not sent: above the limit per second.
    pub limited: u64,
    /// Explicit padding.
    pub reserved: u64,
}

/// Index of the counts of collapse records; those of stalls by stage come first.
pub const COLLAPSE_RECORDS: usize = STAGES;

/// Index of the counts of stack samples.
pub const SAMPLE_RECORDS: usize = STAGES + 1;

/// Number of record counts: stalls by stage, slow collapses, stack samples.
pub const RECORD_COUNTS: usize = STAGES + 2;

/// NAPI polls of a run of `net_rx_action` that are kept individually.
pub const POLLS: usize = 8;

/// One NAPI poll of a run of `net_rx_action`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollSpan {
    /// Duration, ns.
    pub ns: u64,
    /// Index of its row.
    pub row: u32,
    /// Packets processed.
    pub work: u32,
}

/// Breakdown of a run of `net_rx_action` so far.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetRxRun {
    /// From the raise to the run, ns; 0: the raise was not seen.
    pub wait_ns: u64,
    /// Time in polls not listed in `poll`, ns.
    pub more_polls_ns: u64,
    /// Time in `tcp_collapse`, ns.
    pub collapse_ns: u64,
    /// Calls of `tcp_collapse`.
    pub collapse_calls: u32,
    /// Number of polls.
    pub polls: u32,
    /// The first seven polls, then the longest of the rest.
    pub poll: [PollSpan; POLLS],
}

const _: () = assert!(size_of::<NetRxRun>() == 32 + 16 * POLLS);

/// Number of sources of interference: each softirq vector, and all hard IRQs together.
pub const INTERFERENCE_SOURCES: usize = VECTORS as usize + 1;

/// Index of the hard IRQs among the sources of interference, after the vectors.
pub const HARD_IRQ_SOURCE: usize = VECTORS as usize;

/// How long something ran within one span.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeWithin {
    /// Start of the span that the counts belong to, ns. A new span resets them.
    pub span_start_ns: u64,
    /// Time within the span, ns.
    pub ns: u64,
    /// Number of runs.
    pub runs: u64,
}

/// Tasks that ran during a run of NET_RX, where softirqs can be preempted (PREEMPT_RT).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TasksInRun {
    /// All of them. A run here is a stay on the CPU.
    pub time: TimeWithin,
    /// Longest stay, ns.
    pub longest_ns: u64,
    /// The task that stayed longest.
    pub longest: TaskRecord,
}

/// NAPI instances whose rows a CPU remembers: those of a device have consecutive ids, so that up to
/// this many queues of one device do not displace each other.
pub const CACHED_NAPIS: usize = 64;

/// The row of a NAPI instance.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CachedNapi {
    /// Address of the `napi_struct`; 0: none.
    pub address: u64,
    /// Its id: the address may have been freed and reused.
    pub id: u32,
    /// Its row.
    pub row: u32,
    /// How often this CPU noted its IRQ.
    pub votes: u32,
    /// No padding.
    pub reserved: u32,
}

/// State of one CPU. Only programs on this CPU write it. A stamp of 0 means that none is in
/// progress.
///
/// The hot fields are in the first two cache lines and in the first one of `net_rx_run`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CpuState {
    /// First raise of NET_RX since its last entry, ns.
    pub raised_ns: u64,
    /// Start of the running `net_rx_action`, ns.
    pub net_rx_start_ns: u64,
    /// Start of the running NAPI poll, ns.
    pub poll_start_ns: u64,
    /// End of the last NAPI poll, ns.
    pub poll_end_ns: u64,
    /// Jiffies at `poll_end_ns`.
    pub poll_end_jiffies: u64,
    /// Raises of NET_RX since its last entry.
    pub raises: u32,
    /// The hard IRQ in whose handler the first of them was, plus one; 0: in none.
    pub raise_irq_plus_one: u32,
    /// The only hard IRQ that raised the current run of NET_RX, plus one; 0: there is none.
    pub run_irq_plus_one: u32,
    /// Id of the NAPI instance whose row was looked up last.
    pub napi_id: u32,
    /// This CPU's backlog `napi_struct`, once seen. It is never freed.
    pub backlog_napi: u64,
    /// Events that started, per stage, indexed by [`crate::stage::Stage`].
    pub started: [u64; STAGES],
    /// Start of the running hard-IRQ handler, ns.
    pub irq_start_ns: u64,
    /// Number of the running hard IRQ.
    pub irq: u32,
    /// Number of the hard IRQ whose row is cached, plus one.
    pub cached_irq_plus_one: u32,
    /// Row of the cached hard IRQ.
    pub cached_irq_row: u32,
    /// The running softirq vector other than NET_RX, plus one.
    pub vector_plus_one: u32,
    /// Start of the running softirq vector other than NET_RX, ns.
    pub vector_start_ns: u64,
    /// The `napi_struct` being polled, if the probe sees the start of polls.
    pub poll_napi: u64,
    /// Start of the second that `records_in_second` counts, ns.
    pub second_start_ns: u64,
    /// Stalls and slow collapses in that second, including those over the limit.
    pub records_in_second: u64,
    /// Puts `net_rx_run` on its own cache lines.
    pub reserved: [u64; 3],
    /// The current or last run of `net_rx_action`.
    pub net_rx_run: NetRxRun,
    /// Events that were not recorded normally, per stage.
    pub ledger: [StageLedger; STAGES],
    /// Counts of records: stalls by stage, then [`COLLAPSE_RECORDS`] and [`SAMPLE_RECORDS`].
    pub records: [RecordLedger; RECORD_COUNTS],
    /// Interference while NET_RX waited: each vector, then the hard IRQs.
    pub interference: [TimeWithin; INTERFERENCE_SOURCES],
    /// Hard IRQs during a run of `net_rx_action`.
    pub irqs_in_run: TimeWithin,
    /// Last tick of the sampler, ns; 0: none yet.
    pub last_tick_ns: u64,
    /// Time in which the sampler's clock did not count, because others used its hardware, ns.
    pub not_counting_ns: u64,
    /// End of the last NAPI poll outside NET_RX, if the same task polls on, ns; otherwise 0.
    pub outside_poll_ns: u64,
    /// Address of the `task_struct` of its task.
    pub outside_poll_task: u64,
    /// How often that task had left a CPU by then.
    pub outside_poll_switches: u64,
    /// Address of the `task_struct` that runs NET_RX. Set only where softirqs can be preempted.
    pub run_task: u64,
    /// When another task replaced it on the CPU, ns; 0: it is on the CPU.
    pub run_left_ns: u64,
    /// Other tasks during a run of `net_rx_action`.
    pub tasks_in_run: TasksInRun,
    /// The rows of NAPI instances, indexed by the last bits of their ids.
    pub napis: [CachedNapi; CACHED_NAPIS],
    /// Puts each CPU on its own cache lines.
    pub reserved_at_end: [u64; PADDING],
}

/// Words after the last field of [`CpuState`] up to the next cache line.
const PADDING: usize = {
    let used = 8 * (8 + 8 + 8)
        + size_of::<NetRxRun>()
        + STAGES * size_of::<StageLedger>()
        + RECORD_COUNTS * size_of::<RecordLedger>()
        + (INTERFERENCE_SOURCES + 1) * size_of::<TimeWithin>()
        + size_of::<TasksInRun>()
        + CACHED_NAPIS * size_of::<CachedNapi>()
        + 8 * 7;
    (used.next_multiple_of(64) - used) / 8
};

const _: () = assert!(offset_of!(CpuState, started) == 64);
const _: () = assert!(offset_of!(CpuState, net_rx_run) == 192);
const _: () = assert!(size_of::<CpuState>().is_multiple_of(64));
