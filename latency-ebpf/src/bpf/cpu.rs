//! The state of the CPU that a program runs on.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use latency_common::{
    cpu_state::{CpuState, StageLedger},
    row_layout::CpuRow,
    stage::Stage,
};

use super::{config, maps::CPUS};

/// This CPU: its number and its state.
pub(crate) struct Cpu {
    pub(crate) id: u32,
    pub(crate) state: &'static mut CpuState,
}

impl Cpu {
    /// `None` never happens in a loaded program: the array has an element for each possible CPU.
    #[inline(always)]
    pub(crate) fn current() -> Option<Self> {
        // SAFETY: the helper takes no argument.
        let id = unsafe { bpf_get_smp_processor_id() } as u32;
        let state = CPUS.get_ptr_mut(id)?;
        // SAFETY: the pointer comes from a map lookup, and only programs on this CPU write the
        // element. Programs that interrupt this one write other fields, or the same ones atomically
        // (counts of records and of `tcp_collapse`).
        Some(Self { id, state: unsafe { &mut *state } })
    }

    /// Number of events of `stage` that started on this CPU.
    #[inline(always)]
    pub(crate) fn started(&mut self, stage: Stage) -> &mut u64 {
        &mut self.state.started[stage as usize]
    }

    /// Counts of events of `stage` on this CPU that were not recorded normally.
    #[inline(always)]
    pub(crate) fn ledger(&mut self, stage: Stage) -> &mut StageLedger {
        &mut self.state.ledger[stage as usize]
    }

    /// Index of one of this CPU's fixed rows.
    #[inline(always)]
    pub(crate) fn row(&self, row: CpuRow) -> u32 {
        self.id * config::ROWS_PER_CPU.load() + row as u32
    }
}
