//! The maps. The loader sizes maps of size 1 and the ring buffers for the machine.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    macros::map,
    maps::{Array, HashMap, RingBuf},
};
use latency_common::{
    collapse_call::CollapseStack,
    cpu_state::CpuState,
    row::HistogramRow,
    slot::{SlotInfo, SlotKey},
};

/// All histograms, arranged by `RowLayout`. User space mmaps it and reads without a system call.
#[map]
pub(crate) static ROWS: Array<HistogramRow> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// State of each CPU, with the ledger. User space mmaps it too.
#[map]
pub(crate) static CPUS: Array<CpuState> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The slot of a key.
#[map]
pub(crate) static SLOT_BY_KEY: HashMap<SlotKey, u32> = HashMap::with_max_entries(1, 0);

/// What each slot is assigned to.
#[map]
pub(crate) static SLOT_INFO: Array<SlotInfo> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Number of slots requested so far.
#[map]
pub(crate) static SLOT_CURSOR: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Calls of `tcp_collapse` in progress, by the address of their task.
#[map]
pub(crate) static COLLAPSE_CALLS: HashMap<u64, CollapseStack> = HashMap::with_max_entries(4096, 0);

/// Stall records: see `latency_common::stall_record`.
#[map]
pub(crate) static STALL_RECORDS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Every event of the run, if the transport sends events.
#[map]
pub(crate) static SPAN_EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Flags to submit an entry of `ring` with. Its reader polls, since a wake-up for each entry would
/// cost more than the entry; it is woken when more than `bytes` are unread.
#[inline(always)]
pub(crate) fn wake_up(ring: &RingBuf, bytes: u64) -> u64 {
    let crowded = ring.query(u64::from(BPF_RB_AVAIL_DATA)) > bytes;
    u64::from(if crowded { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}
