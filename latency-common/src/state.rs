//! What the programs keep per CPU: stamps of intervals under way, caches, and the ledger.

use core::mem::offset_of;

use crate::{
    record::{RECORD_BOOKS, SocketBefore},
    stage::{STAGES, VECTORS},
};

/// What happened to intervals of one stage on one CPU besides being recorded. All of it is rare.
///
/// [`CpuState::begins`] equals recorded + open + `begins_without_end` + `backwards`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageLedger {
    /// Ends that had no begin: the interval began before the probes were attached, or the probe
    /// at its begin was skipped. Not part of the begins.
    pub ends_without_begin: u64,
    /// Begins whose end never came: the probe at the end was skipped by the kernel.
    pub begins_without_end: u64,
    /// Intervals whose end was stamped before their begin; not recorded.
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

/// Counts of records that were to travel through the ring buffer of stalls.
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

/// How a run of `net_rx_action` was spent so far.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cycle {
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

const _: () = assert!(size_of::<Cycle>() == 32 + 16 * POLLS);

/// Holders of a CPU that are told apart: each softirq vector, and the hard IRQs.
pub const HOLDERS: usize = VECTORS as usize + 1;

/// For how long one of them held the CPU while NET_RX waited.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Which wait: its begin, ns. Counts of an older wait are started anew.
    pub wait: u64,
    /// Time inside the wait, ns.
    pub ns: u64,
    /// Runs.
    pub runs: u64,
}

/// State of one CPU. Only programs on this CPU write it. A stamp of 0 means: none under way.
///
/// What each packet touches lies in the first two cache lines and in the first of the cycle.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuState {
    /// Oldest raise of NET_RX that has not been entered, ns.
    pub raised_ns: u64,
    /// Begin of the running `net_rx_action`, ns.
    pub net_rx_begin_ns: u64,
    /// Begin of the running NAPI poll, ns.
    pub poll_begin_ns: u64,
    /// End of the NAPI poll that ended last, ns.
    pub poll_end_ns: u64,
    /// The kernel's count of timer ticks at that end.
    pub poll_end_jiffies: u64,
    /// The `napi_struct` polled last, its id, and its row.
    pub cached_napi: u64,
    /// Id of `cached_napi`: the address alone may have been freed and used again.
    pub cached_napi_id: u32,
    /// Row of `cached_napi`.
    pub cached_napi_row: u32,
    /// This CPU's backlog `napi_struct`, once seen. It is never freed.
    pub backlog_napi: u64,
    /// Intervals that began, per stage, indexed by [`crate::stage::Stage`].
    pub begins: [u64; STAGES],
    /// Begin of the running hard-IRQ handler, ns.
    pub irq_begin_ns: u64,
    /// Number of the running hard IRQ.
    pub irq: u32,
    /// Number of the hard IRQ whose row is cached, plus one.
    pub cached_irq_plus_one: u32,
    /// Row of the cached hard IRQ.
    pub cached_irq_row: u32,
    /// The running softirq vector other than NET_RX, plus one.
    pub vector_plus_one: u32,
    /// Begin of the running softirq vector other than NET_RX, ns.
    pub vector_begin_ns: u64,
    /// The `napi_struct` whose poll is running, where polls are known at their begin.
    pub poll_napi: u64,
    /// Begin of the second in which `records_in_second` were sent, ns.
    pub second_begin_ns: u64,
    /// Records of stalls and slow collapses sent in that second.
    pub records_in_second: u64,
    /// Keeps the cycle in cache lines of its own.
    pub reserved: [u64; 3],
    /// The run of `net_rx_action` under way, or the last one.
    pub cycle: Cycle,
    /// What became of intervals that are not recorded as they should be, per stage.
    pub ledger: [StageLedger; STAGES],
    /// Counts of records: stalls by stage, then as [`crate::record`] says.
    pub records: [RecordLedger; RECORD_BOOKS],
    /// Who held the CPU while NET_RX waited: each vector, then the hard IRQs.
    pub held: [Held; HOLDERS],
    /// Keeps each CPU in cache lines of its own.
    pub reserved_behind_held: [u64; PADDING],
}

/// Words behind the last field of [`CpuState`] up to the next cache line.
const PADDING: usize = {
    let used = 8 * (8 + 8 + 8)
        + size_of::<Cycle>()
        + STAGES * size_of::<StageLedger>()
        + RECORD_BOOKS * size_of::<RecordLedger>()
        + HOLDERS * size_of::<Held>();
    (used.next_multiple_of(64) - used) / 8
};

const _: () = assert!(offset_of!(CpuState, begins) == 64 && offset_of!(CpuState, cycle) == 192);
const _: () = assert!(size_of::<CpuState>().is_multiple_of(64));

/// One call of `tcp_collapse` under way.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CollapseCall {
    /// Its begin, ns.
    pub begin_ns: u64,
    /// Address of the socket.
    pub sock: u64,
    /// The socket then.
    pub before: SocketBefore,
    /// 1: of the out-of-order queue; 0: of the receive queue.
    pub out_of_order: u32,
    /// Explicit padding.
    pub reserved: u32,
}

impl CollapseCall {
    /// No call.
    pub const NONE: Self = Self {
        begin_ns: 0,
        sock: 0,
        before: SocketBefore {
            rmem_alloc: 0,
            rcvbuf: 0,
            rcv_ssthresh: 0,
            window_clamp: 0,
            queue_len: 0,
            payload_bytes: 0,
        },
        out_of_order: 0,
        reserved: 0,
    };
}

/// Calls of `tcp_collapse` under way in one task: its own, and one of the softirq that
/// interrupted it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CollapseStack {
    /// Number of calls under way: 1 or 2.
    pub depth: u64,
    /// The calls, outermost first.
    pub calls: [CollapseCall; 2],
}

const _: () = assert!(size_of::<CollapseStack>() == 8 + 2 * 48);
