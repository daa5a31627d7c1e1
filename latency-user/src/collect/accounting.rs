//! Accounting: sums for the ledger over all CPUs.

use latency_common::{
    cpu_state::{
        COLLAPSE_RECORDS, CpuState, RECORD_COUNTS, RecordLedger, SAMPLE_RECORDS, StageLedger,
    },
    row_layout::{RowLayout, RowOwner},
    slot::{SlotInfo, SlotKind},
    stage::{STAGES, Stage},
};

use super::{events::EventCounts, snapshot::RowCounters, stalls::StallCollector};
use crate::{
    kernel::{attached::Attached, maps::mmap::MmapArray},
    model::{
        ledger::{Ledger, ProgramCounts, RecordCounts, Slots, StageCounts, UserCounts},
        method::Method,
        run::{SelectedProbe, Transport},
    },
};

/// The stage that the row at `index` belongs to; `None`: a slot that was not assigned.
pub fn stage_of(index: u32, layout: &RowLayout, slots: &MmapArray<SlotInfo>) -> Option<Stage> {
    match layout.owner(index) {
        RowOwner::Cpu { row, .. } => Some(row.stage()),
        RowOwner::Vector { .. } => Some(Stage::Softirq),
        RowOwner::Slot(slot) => match SlotKind::try_from(slots.copy(slot as usize).kind) {
            Ok(SlotKind::Napi | SlotKind::NapiWithoutId) => Some(Stage::NapiPoll),
            Ok(SlotKind::Irq) => Some(Stage::Irq),
            Ok(SlotKind::Abandoned) | Err(_) => None,
        },
    }
}

/// Events of every stage that started, summed over all CPUs, indexed by [`Stage`].
pub fn sum_started(cpus: &MmapArray<CpuState>) -> [u64; STAGES] {
    let mut sums = [0; STAGES];
    for cpu in 0..cpus.len() {
        for (sum, started) in sums.iter_mut().zip(cpus.copy(cpu).started) {
            *sum += started;
        }
    }
    sums
}

/// Events that were not recorded normally, summed over all CPUs, indexed by [`Stage`].
pub fn sum_cpus(cpus: &MmapArray<CpuState>) -> [StageLedger; STAGES] {
    let mut sums = [StageLedger::default(); STAGES];
    for cpu in 0..cpus.len() {
        for (sum, stage) in sums.iter_mut().zip(cpus.copy(cpu).ledger) {
            sum.unmatched_end += stage.unmatched_end;
            sum.unmatched_start += stage.unmatched_start;
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
pub fn sum_records(cpus: &MmapArray<CpuState>) -> [RecordLedger; RECORD_COUNTS] {
    let mut sums = [RecordLedger::default(); RECORD_COUNTS];
    for cpu in 0..cpus.len() {
        for (sum, records) in sums.iter_mut().zip(cpus.copy(cpu).records) {
            sum.submitted += records.submitted;
            sum.dropped += records.dropped;
            sum.limited += records.limited;
        }
    }
    sums
}

/// Data received through the ring buffers.
pub struct Received<'a> {
    /// Events, if the transport sends them.
    pub events: &'a EventCounts,
    /// Records of stalls.
    pub stalls: &'a StallCollector,
}

/// Events of `stage` in progress.
pub fn in_progress(stage: Stage, method: Method, attached: &Attached) -> u64 {
    let count = |is_open: fn(&CpuState) -> bool| {
        let cpus = &attached.cpus;
        (0..cpus.len()).filter(|cpu| is_open(&cpus.copy(*cpu))).count() as u64
    };
    match stage {
        Stage::RxWait => count(|cpu| cpu.raised_ns != 0),
        Stage::NetRx => count(|cpu| cpu.net_rx_start_ns != 0),
        // The tracepoint fires only at the end of a poll, so none is ever in progress.
        Stage::NapiPoll if method == Method::Tracepoint => 0,
        Stage::NapiPoll => count(|cpu| cpu.poll_start_ns != 0),
        Stage::Irq => count(|cpu| cpu.irq_start_ns != 0),
        Stage::Softirq => count(|cpu| cpu.vector_plus_one != 0),
        Stage::TcpCollapse => attached.collapses_in_progress(),
    }
}

/// Events and records that had started at one moment of a run.
#[derive(Default)]
pub struct Started {
    stages: [u64; STAGES],
    records: [RecordLedger; RECORD_COUNTS],
    /// Records that must have arrived: those submitted an interval earlier. A CPU that is stopped in
    /// the middle of a record holds up all later ones, of other CPUs, too.
    due: [u64; RECORD_COUNTS],
}

impl Started {
    /// Those that have started now, an interval after `earlier`.
    pub fn now(attached: &Attached, earlier: &Self) -> Self {
        Self {
            stages: sum_started(&attached.cpus),
            records: sum_records(&attached.cpus),
            due: earlier.records.map(|records| records.submitted),
        }
    }
}

/// The ledger of a run that goes on, as of the rows that were read last. `earlier`: what had started
/// before they were read.
///
/// While it is read, events end and others start. A stage balances if what has ended lies between
/// what had started before and what has started after, and as many are in progress as are missing.
/// A CPU may have been stopped between sending a record and counting it.
pub fn of_running(mut ledger: Ledger, earlier: &Started, cpus: u32) -> Ledger {
    let cpus = u64::from(cpus);
    for counts in &mut ledger.stages {
        let Some(stage) = counts.stage.known() else { continue };
        let at = stage as usize;
        let ended = counts.recorded + counts.unmatched_start + counts.backwards;
        // Collapses nest two deep, and run in process context, too.
        let in_progress = if stage == Stage::TcpCollapse { u64::MAX } else { cpus };
        let least = earlier.stages[at].saturating_sub(in_progress);
        let sent = earlier.records[at];
        let had_to_send = sent.submitted + sent.dropped + sent.limited;
        let records_balance = (earlier.due[at]..=counts.records.submitted + cpus)
            .contains(&counts.records.received)
            && (stage == Stage::Softirq
                || (had_to_send <= counts.over_threshold + cpus
                    && counts.over_threshold <= counts.records.total() + cpus));
        counts.balanced = (least..=counts.started).contains(&ended) && records_balance;
        counts.in_progress = counts.started.saturating_sub(ended);
        counts.records.submitted = counts.records.received;
    }
    for (counts, at) in
        [(&mut ledger.collapses, COLLAPSE_RECORDS), (&mut ledger.samples, SAMPLE_RECORDS)]
    {
        // Records that are on their way have not been submitted, as far as this ledger goes.
        if (earlier.due[at]..=counts.submitted + cpus).contains(&counts.received) {
            counts.submitted = counts.received;
        }
    }
    ledger.closed()
}

/// The ledger of a run whose programs are detached.
pub fn close(
    probes: &[SelectedProbe],
    attached: &Attached,
    layout: &RowLayout,
    transport: Transport,
    rows: &RowCounters,
    data: &Received,
    programs: Vec<ProgramCounts>,
) -> Ledger {
    let Received { events, stalls } = data;
    let started = sum_started(&attached.cpus);
    let sums = sum_cpus(&attached.cpus);
    let records = sum_records(&attached.cpus);
    let (mut recorded, mut over_threshold) = ([0; STAGES], [0; STAGES]);
    for (index, row) in rows.known() {
        if let Some(stage) = stage_of(index, layout, &attached.slots) {
            recorded[stage as usize] += row.count();
            over_threshold[stage as usize] += row.sums.over_threshold;
        }
    }
    let mut received = [0; STAGES];
    let mut differing = 0;
    for index in events.rows() {
        let Some(row) = events.distribution(index) else { continue };
        if let Some(stage) = stage_of(index, layout, &attached.slots) {
            received[stage as usize] += row.count();
        }
        differing += u64::from(rows.row(index).is_none_or(|known| known.total() != row));
    }
    let stages = probes
        .iter()
        .filter_map(|probe| probe.method.map(|method| (probe.stage, method)))
        .map(|(stage, method)| {
            let at = stage as usize;
            let counted = UserCounts {
                started: started[at],
                recorded: recorded[at],
                over_threshold: over_threshold[at],
                in_progress: in_progress(stage, method, attached),
                events: received[at],
                records: stalls.received[at],
            };
            StageCounts::new(stage, &sums[at], &records[at], counted, transport.counts_in_rows())
        })
        .collect();
    let record_counts = |at: usize| RecordCounts::new(&records[at], stalls.received[at]);
    let capacity = u64::from(layout.slots);
    Ledger {
        stages,
        // CPUs that race for the last slot can move the cursor past the table size: clamp it.
        slots: Slots { capacity, used: attached.slot_cursor.word(0, 0).min(capacity) },
        malformed_events: events.malformed,
        rows_that_differ: (transport == Transport::Both).then_some(differing),
        collapses: record_counts(COLLAPSE_RECORDS),
        samples: record_counts(SAMPLE_RECORDS),
        malformed_records: stalls.malformed,
        programs,
        balanced: false,
    }
    .closed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a running ledger balances when `received` of `submitted` records have arrived.
    fn balances(due: u64, received: u64, submitted: u64) -> bool {
        const STALLS: u64 = 20;
        let sent = RecordLedger { submitted, limited: STALLS - submitted, ..Default::default() };
        let counted = UserCounts {
            started: 1000,
            recorded: 999,
            over_threshold: STALLS,
            records: received,
            ..UserCounts::default()
        };
        let stage = StageCounts::new(Stage::NetRx, &StageLedger::default(), &sent, counted, true);
        let mut earlier = Started::default();
        earlier.stages[Stage::NetRx as usize] = 990;
        earlier.records[Stage::NetRx as usize] = sent;
        earlier.due[Stage::NetRx as usize] = due;
        let ledger = Ledger { stages: vec![stage], ..Ledger::default() };
        of_running(ledger, &earlier, 2).balanced
    }

    #[test]
    fn records_may_be_on_their_way_for_an_interval() {
        assert!(balances(7, 9, 9));
        // Held up behind the record of a CPU that is stopped.
        assert!(balances(7, 7, 9));
        assert!(!balances(7, 6, 9));
        // Stopped between sending and counting.
        assert!(balances(7, 11, 9));
        assert!(!balances(7, 12, 9));
    }
}
