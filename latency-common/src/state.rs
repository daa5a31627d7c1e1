//! What the programs keep per CPU: stamps of intervals under way, caches, and the ledger.

use crate::stage::STAGES;

/// Counts of one stage on one CPU, from which the ledger is summed up.
///
/// `begins` equals recorded + open + `begins_without_end` + `backwards` + `table_full`
/// (for the stages that can fill a table, a full table still records, in a catch-all row).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageLedger {
    /// Intervals that began.
    pub begins: u64,
    /// Ends that had no begin: the interval began before the probes were attached, or the probe
    /// at its begin was skipped. Not part of `begins`.
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

const _: () = assert!(size_of::<StageLedger>() == 64);

/// State of one CPU. Only programs on this CPU write it. A stamp of 0 means: none under way.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuState {
    /// Oldest raise of NET_RX that has not been entered, ns.
    pub raised_ns: u64,
    /// Begin of the running `net_rx_action`, ns.
    pub net_rx_begin_ns: u64,
    /// Begin of the running NAPI poll, ns.
    pub poll_begin_ns: u64,
    /// The `napi_struct` whose poll is running.
    pub poll_napi: u64,
    /// The `napi_struct` polled last, its id, and its row.
    pub cached_napi: u64,
    /// Id of `cached_napi`: the address alone may have been freed and used again.
    pub cached_napi_id: u32,
    /// Row of `cached_napi`.
    pub cached_napi_row: u32,
    /// This CPU's backlog `napi_struct`, once seen. It is never freed.
    pub backlog_napi: u64,
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
    /// Keeps the ledger of each stage, and each CPU, in cache lines of their own.
    pub reserved: [u64; 5],
    /// Counts per stage, indexed by [`crate::stage::Stage`].
    pub ledger: [StageLedger; STAGES],
}

const _: () = assert!(size_of::<CpuState>() == 128 + 64 * STAGES);

/// Calls of `tcp_collapse` under way in one task: its own, and one of the softirq that
/// interrupted it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CollapseStack {
    /// Number of calls under way: 1 or 2.
    pub depth: u64,
    /// Their begins, ns, outermost first.
    pub begin_ns: [u64; 2],
}

const _: () = assert!(size_of::<CollapseStack>() == 24);
