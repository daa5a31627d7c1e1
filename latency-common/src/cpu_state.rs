//! What the programs keep per CPU: start stamps of events in progress, caches, and the accounting.

use core::mem::offset_of;

use crate::stage::{STAGES, VECTORS};

/// What happened to events of one stage on one CPU besides being recorded. All of it is rare.
///
/// [`CpuState::started`] equals recorded + in progress + `unmatched_start` + `backwards`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageLedger {
    /// Ends without a start: the event started before the probes were attached, or the probe at
    /// its start was skipped. Not part of the starts.
    pub unmatched_end: u64,
    /// Starts whose end never came: the probe at the end was skipped by the kernel.
    pub unmatched_start: u64,
    /// Events whose end stamp lies before their start stamp; not recorded.
    pub backwards: u64,
    /// Recorded in the CPU's catch-all row, because no slot was left for the queue or IRQ.
    pub table_full: u64,
    /// Longer than the last bucket; counted in it, exact in sum and maximum.
    pub clamped: u64,
    /// Events sent through the ring buffer.
    pub ring_submitted: u64,
    /// Events that found the ring buffer full.
    pub ring_dropped: u64,
}

/// Counts of one kind of record of the stall ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordLedger {
    /// Sent.
    pub submitted: u64,
    /// Not sent: the ring buffer was full.
    pub dropped: u64,
    /// Not sent: more than the limit in one second.
    pub limited: u64,
    /// Explicit padding.
    pub reserved: u64,
}

/// Index of the counts of collapse records, behind those of each stage's stalls.
pub const COLLAPSE_RECORDS: usize = STAGES;

/// Index of the counts of stack samples.
pub const SAMPLE_RECORDS: usize = STAGES + 1;

/// Kinds of records that are counted: stalls by stage, slow collapses, stack samples.
pub const RECORD_COUNTS: usize = STAGES + 2;

/// NAPI polls of a run of `net_rx_action` that are kept one by one.
pub const POLLS: usize = 8;

/// One NAPI poll of a run of `net_rx_action`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollSpan {
    /// How long it took, ns.
    pub ns: u64,
    /// Index of its row.
    pub row: u32,
    /// Packets that it processed.
    pub work: u32,
}

/// How a run of `net_rx_action` has been spent so far.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetRxRun {
    /// From the raise to the run, ns; 0: the raise was not seen.
    pub wait_ns: u64,
    /// Time in polls that are not in `poll`, ns.
    pub more_polls_ns: u64,
    /// Time in `tcp_collapse`, ns.
    pub collapse_ns: u64,
    /// Calls of `tcp_collapse`.
    pub collapse_calls: u32,
    /// Number of polls.
    pub polls: u32,
    /// The first seven polls, and the longest of the others.
    pub poll: [PollSpan; POLLS],
}

const _: () = assert!(size_of::<NetRxRun>() == 32 + 16 * POLLS);

/// Sources of interference that are told apart: each softirq vector, and all hard IRQs together.
pub const INTERFERENCE_SOURCES: usize = VECTORS as usize + 1;

/// Index of the hard IRQs among the sources of interference; the vectors come before them.
pub const HARD_IRQ_SOURCE: usize = VECTORS as usize;

/// How long one source ran on a CPU while NET_RX waited for it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterferenceTime {
    /// The wait that the counts belong to: its start, ns. A newer wait starts them from 0.
    pub wait_start_ns: u64,
    /// Time inside the wait, ns.
    pub ns: u64,
    /// Runs.
    pub runs: u64,
}

/// State of one CPU. Only programs on this CPU write it. A stamp of 0 means: none in progress.
///
/// What each packet touches lies in the first two cache lines and in the first of `net_rx_run`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuState {
    /// Oldest raise of NET_RX that has not been entered, ns.
    pub raised_ns: u64,
    /// Start of the running `net_rx_action`, ns.
    pub net_rx_start_ns: u64,
    /// Start of the running NAPI poll, ns.
    pub poll_start_ns: u64,
    /// End of the last NAPI poll, ns.
    pub poll_end_ns: u64,
    /// The kernel's count of timer ticks at that end.
    pub poll_end_jiffies: u64,
    /// Address of the `napi_struct` polled last.
    pub cached_napi: u64,
    /// Id of `cached_napi`: the address alone may have been freed and used again.
    pub cached_napi_id: u32,
    /// Row of `cached_napi`.
    pub cached_napi_row: u32,
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
    /// The `napi_struct` whose poll is running, where polls are known at their start.
    pub poll_napi: u64,
    /// Start of the second in which `records_in_second` were sent, ns.
    pub second_start_ns: u64,
    /// Records of stalls and slow collapses sent in that second.
    pub records_in_second: u64,
    /// Keeps `net_rx_run` in cache lines of its own.
    pub reserved: [u64; 3],
    /// The run of `net_rx_action` in progress, or the last one.
    pub net_rx_run: NetRxRun,
    /// What became of events that were not recorded normally, per stage.
    pub ledger: [StageLedger; STAGES],
    /// Counts of records: stalls by stage, then [`COLLAPSE_RECORDS`] and [`SAMPLE_RECORDS`].
    pub records: [RecordLedger; RECORD_COUNTS],
    /// What ran while NET_RX waited: each vector, then the hard IRQs.
    pub interference: [InterferenceTime; INTERFERENCE_SOURCES],
    /// Keeps each CPU in cache lines of its own.
    pub reserved_behind_interference: [u64; PADDING],
}

/// Words behind the last field of [`CpuState`] up to the next cache line.
const PADDING: usize = {
    let used = 8 * (8 + 8 + 8)
        + size_of::<NetRxRun>()
        + STAGES * size_of::<StageLedger>()
        + RECORD_COUNTS * size_of::<RecordLedger>()
        + INTERFERENCE_SOURCES * size_of::<InterferenceTime>();
    (used.next_multiple_of(64) - used) / 8
};

const _: () = assert!(offset_of!(CpuState, started) == 64);
const _: () = assert!(offset_of!(CpuState, net_rx_run) == 192);
const _: () = assert!(size_of::<CpuState>().is_multiple_of(64));
