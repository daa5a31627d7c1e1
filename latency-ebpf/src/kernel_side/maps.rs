//! The maps. Sizes marked with 1 are set by the loader to what the machine has.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, RingBuf},
};
use latency_common::{
    row::HistogramRow,
    slot::{SlotInfo, SlotKey},
    state::{CollapseStack, CpuState},
};

/// All histograms, arranged as `RowLayout` says. User space maps it and reads without a call.
#[map]
pub(super) static ROWS: Array<HistogramRow> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// State of each CPU. User space maps it too: the ledger is in it.
#[map]
pub(super) static CPUS: Array<CpuState> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The slot of a key.
#[map]
pub(super) static SLOT_OF: HashMap<SlotKey, u32> = HashMap::with_max_entries(1, 0);

/// Who a slot was handed to.
#[map]
pub(super) static SLOT_INFO: Array<SlotInfo> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Number of slots asked for so far.
#[map]
pub(super) static SLOT_CURSOR: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Calls of `tcp_collapse` under way, by the task in whose context they run.
#[map]
pub(super) static COLLAPSING: HashMap<u64, CollapseStack> = HashMap::with_max_entries(4096, 0);

/// What is known of stalls: `latency_common::record`s.
#[map]
pub(super) static RECORDS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Every event of the run, when they are sent one by one.
#[map]
pub(super) static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);
