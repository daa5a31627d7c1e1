//! The ledger's sums over all CPUs.

use latency_common::{
    record::{COLLAPSE_BOOKS, RECORD_BOOKS, SAMPLE_BOOKS},
    slot::{RowLayout, RowOwner, SlotInfo, SlotKind},
    stage::{STAGES, Stage},
    state::{CpuState, RecordLedger, StageLedger},
};

use super::{events::EventCounts, snapshot::Rows, stalls::StallCollector};
use crate::{
    kernel::{attached::Attached, maps::mmap::Mapped},
    model::{
        ledger::{Counted, Ledger, ProgramBooks, RecordBooks, Slots, StageBooks},
        run::{Method, ProbeUse, Transport},
    },
};

/// The stage that the row at `index` belongs to; `None`: a slot that was not handed out.
pub fn stage_of(index: u32, layout: &RowLayout, slots: &Mapped<SlotInfo>) -> Option<Stage> {
    match layout.owner(index) {
        RowOwner::Cpu { row, .. } => Some(row.stage()),
        RowOwner::Vector { .. } => Some(Stage::Softirq),
        RowOwner::Slot(slot) => match SlotKind::try_from(slots.copy(slot as usize).kind) {
            Ok(SlotKind::Napi | SlotKind::NapiWithoutId) => Some(Stage::NapiPoll),
            Ok(SlotKind::Irq) => Some(Stage::Irq),
            Ok(SlotKind::Nothing) | Err(_) => None,
        },
    }
}

/// Intervals of every stage that began, summed over all CPUs, indexed by [`Stage`].
pub fn sum_begins(cpus: &Mapped<CpuState>) -> [u64; STAGES] {
    let mut sums = [0; STAGES];
    for cpu in 0..cpus.len() {
        for (sum, begins) in sums.iter_mut().zip(cpus.copy(cpu).begins) {
            *sum += begins;
        }
    }
    sums
}

/// What became of other intervals of every stage, summed over all CPUs, indexed by [`Stage`].
pub fn sum_cpus(cpus: &Mapped<CpuState>) -> [StageLedger; STAGES] {
    let mut sums = [StageLedger::default(); STAGES];
    for cpu in 0..cpus.len() {
        for (sum, stage) in sums.iter_mut().zip(cpus.copy(cpu).ledger) {
            sum.ends_without_begin += stage.ends_without_begin;
            sum.begins_without_end += stage.begins_without_end;
            sum.backwards += stage.backwards;
            sum.table_full += stage.table_full;
            sum.clamped += stage.clamped;
            sum.ring_submitted += stage.ring_submitted;
            sum.ring_dropped += stage.ring_dropped;
        }
    }
    sums
}

/// Counts of records of every kind, summed over all CPUs.
pub fn sum_records(cpus: &Mapped<CpuState>) -> [RecordLedger; RECORD_BOOKS] {
    let mut sums = [RecordLedger::default(); RECORD_BOOKS];
    for cpu in 0..cpus.len() {
        for (sum, records) in sums.iter_mut().zip(cpus.copy(cpu).records) {
            sum.submitted += records.submitted;
            sum.dropped += records.dropped;
            sum.limited += records.limited;
        }
    }
    sums
}

/// What arrived through the ring buffers.
pub struct Received<'a> {
    /// Events, where they are sent.
    pub events: &'a EventCounts,
    /// Records of stalls.
    pub stalls: &'a StallCollector,
}

/// Intervals of `stage` under way.
pub fn open(stage: Stage, method: Method, attached: &Attached) -> u64 {
    let count = |is_open: fn(&CpuState) -> bool| {
        let cpus = &attached.cpus;
        (0..cpus.len()).filter(|cpu| is_open(&cpus.copy(*cpu))).count() as u64
    };
    match stage {
        Stage::RxWait => count(|cpu| cpu.raised_ns != 0),
        Stage::NetRx => count(|cpu| cpu.net_rx_begin_ns != 0),
        // By tracepoint a poll is known at its end only, so none is ever open.
        Stage::NapiPoll if method == Method::Tracepoint => 0,
        Stage::NapiPoll => count(|cpu| cpu.poll_begin_ns != 0),
        Stage::Irq => count(|cpu| cpu.irq_begin_ns != 0),
        Stage::Softirq => count(|cpu| cpu.vector_plus_one != 0),
        Stage::TcpCollapse => attached.collapses_under_way(),
    }
}

/// The books of a run whose programs are detached.
pub fn close(
    uses: &[ProbeUse],
    attached: &Attached,
    layout: &RowLayout,
    transport: Transport,
    rows: &Rows,
    arrived: &Received,
    programs: Vec<ProgramBooks>,
) -> Ledger {
    let Received { events, stalls } = arrived;
    let begins = sum_begins(&attached.cpus);
    let sums = sum_cpus(&attached.cpus);
    let records = sum_records(&attached.cpus);
    let (mut recorded, mut over_threshold) = ([0; STAGES], [0; STAGES]);
    for (index, row) in rows {
        if let Some(stage) = stage_of(*index, layout, &attached.slots) {
            recorded[stage as usize] += row.count();
            over_threshold[stage as usize] += row.over_threshold;
        }
    }
    let mut received = [0; STAGES];
    let mut differing = 0;
    for index in events.rows() {
        let Some(row) = events.distribution(index) else { continue };
        if let Some(stage) = stage_of(index, layout, &attached.slots) {
            received[stage as usize] += row.count();
        }
        differing += u64::from(rows.get(&index) != Some(&row));
    }
    let stages = uses
        .iter()
        .filter_map(|one| one.method.map(|method| (one.stage, method)))
        .map(|(stage, method)| {
            let at = stage as usize;
            let counted = Counted {
                begins: begins[at],
                recorded: recorded[at],
                over_threshold: over_threshold[at],
                open: open(stage, method, attached),
                events: received[at],
                records: stalls.received[at],
            };
            StageBooks::new(stage, &sums[at], &records[at], counted, transport.counts_in_rows())
        })
        .collect();
    let of_records = |at: usize| RecordBooks::new(&records[at], stalls.received[at]);
    let room = u64::from(layout.slots);
    Ledger {
        stages,
        // The cursor also counts those that were asked for in vain.
        slots: Slots { room, taken: attached.slot_cursor.word(0, 0).min(room) },
        malformed_events: events.malformed,
        rows_that_differ: (transport == Transport::Both).then_some(differing),
        collapses: of_records(COLLAPSE_BOOKS),
        samples: of_records(SAMPLE_BOOKS),
        malformed_records: stalls.malformed,
        programs,
        balanced: false,
    }
    .closed()
}
