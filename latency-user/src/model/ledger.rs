//! The ledger: the sums that prove that nothing was lost unnoticed.

use latency_common::{
    cpu_state::{RecordLedger, StageLedger},
    stage::Stage,
};
use serde::{Deserialize, Serialize};

use super::stage::StageName;

/// The ledgers of all stages of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// One entry for each stage that was timed.
    pub stages: Vec<StageCounts>,
    /// Events of the ring buffer that could not be parsed.
    pub malformed_events: u64,
    /// With both transports at once: rows whose counts differ between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_that_differ: Option<u64>,
    /// Rows for queues and IRQs.
    #[serde(default)]
    pub slots: Slots,
    /// Records of slow calls of `tcp_collapse`.
    #[serde(default)]
    pub collapses: RecordCounts,
    /// Samples of stalls in progress.
    #[serde(default)]
    pub samples: RecordCounts,
    /// Records that could not be parsed.
    #[serde(default)]
    pub malformed_records: u64,
    /// Runs that the kernel skipped, by program.
    #[serde(default)]
    pub programs: Vec<ProgramCounts>,
    /// Whether the counts of every stage balance, and those of records.
    pub balanced: bool,
}

/// Rows that are assigned when a queue or an IRQ is first seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// Number of rows; events that found none left count as `table_full` of their stage.
    #[serde(alias = "room")]
    pub capacity: u64,
    /// How many were assigned.
    #[serde(alias = "taken")]
    pub used: u64,
}

/// Counts of one kind of record, summed over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordCounts {
    /// Records that the kernel side sent.
    pub submitted: u64,
    /// Records that arrived.
    pub received: u64,
    /// Records that found the ring buffer full.
    pub dropped: u64,
    /// Records above the limit per second.
    pub limited: u64,
}

/// Runs of one program that the kernel skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramCounts {
    /// Name of the program.
    pub program: String,
    /// Runs that the kernel skipped, because the program was already running on the CPU; absent
    /// when the kernel does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recursion_misses: Option<u64>,
    /// Calls that a kprobe or kretprobe missed (`nmissed`); absent for other programs, and on
    /// kernels before 6.7, which do not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}

/// Counts of a stage in user space, in addition to the kernel side's own ledger.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserCounts {
    /// Events that started.
    pub started: u64,
    /// Events in rows, or received one by one when there are no rows.
    pub recorded: u64,
    /// Recorded events at or above the threshold.
    pub over_threshold: u64,
    /// Events in progress.
    pub in_progress: u64,
    /// Events received from the ring buffer.
    pub events: u64,
    /// Records of stalls received.
    pub records: u64,
}

/// The events of one stage by outcome, summed over all CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageCounts {
    /// Name of the stage.
    pub stage: StageName,
    /// Events that started.
    #[serde(alias = "begins")]
    pub started: u64,
    /// Events that ended and are in a row, or were received one by one.
    pub recorded: u64,
    /// Recorded events at or above the threshold: each of these stalls must be in `records`.
    #[serde(default)]
    pub over_threshold: u64,
    /// Events in progress when the ledger was closed.
    #[serde(alias = "open")]
    pub in_progress: u64,
    /// Starts without an end.
    #[serde(alias = "begins_without_end")]
    pub unmatched_start: u64,
    /// Events whose end timestamp lies before their start timestamp.
    pub backwards: u64,
    /// Ends without a start: not part of the balance.
    #[serde(alias = "ends_without_begin")]
    pub unmatched_end: u64,
    /// Events recorded in a catch-all row, because no slot was left.
    pub table_full: u64,
    /// Events longer than the last bucket.
    pub clamped: u64,
    /// Events sent through the ring buffer.
    pub ring_submitted: u64,
    /// Events received from the ring buffer.
    pub ring_received: u64,
    /// Events that found the ring buffer full.
    pub ring_dropped: u64,
    /// Records of the stage's stalls.
    #[serde(default)]
    pub records: RecordCounts,
    /// `started` equals `recorded + in_progress + unmatched_start + backwards` (plus `ring_dropped`
    /// when only events are kept), `ring_submitted` equals `ring_received`, records that were
    /// submitted were received, and every stall is in `records` ([`Self::covers_every_stall`]).
    pub balanced: bool,
}

impl StageCounts {
    /// Sums up a stage. `in_rows`: events are counted in rows.
    pub fn new(
        stage: Stage,
        cpus: &StageLedger,
        records: &RecordLedger,
        counted: UserCounts,
        in_rows: bool,
    ) -> Self {
        let UserCounts { started, recorded, over_threshold, in_progress, events: received, .. } =
            counted;
        let records = RecordCounts::new(records, counted.records);
        let unknown = if in_rows { 0 } else { cpus.ring_dropped };
        let ended = recorded + in_progress + cpus.unmatched_start + cpus.backwards + unknown;
        let mut counts = Self {
            stage: stage.into(),
            started,
            recorded,
            over_threshold,
            in_progress,
            unmatched_start: cpus.unmatched_start,
            backwards: cpus.backwards,
            unmatched_end: cpus.unmatched_end,
            table_full: cpus.table_full,
            clamped: cpus.clamped,
            ring_submitted: cpus.ring_submitted,
            ring_received: received,
            ring_dropped: cpus.ring_dropped,
            records,
            balanced: false,
        };
        counts.balanced = counts.started == ended
            && counts.ring_submitted == counts.ring_received
            && counts.records.is_balanced()
            && counts.covers_every_stall(in_rows);
        counts
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        self.started += other.started;
        self.recorded += other.recorded;
        self.over_threshold += other.over_threshold;
        self.in_progress += other.in_progress;
        self.unmatched_start += other.unmatched_start;
        self.backwards += other.backwards;
        self.unmatched_end += other.unmatched_end;
        self.table_full += other.table_full;
        self.clamped += other.clamped;
        self.ring_submitted += other.ring_submitted;
        self.ring_received += other.ring_received;
        self.ring_dropped += other.ring_dropped;
        self.records.add(&other.records);
        self.balanced &= other.balanced;
    }

    /// Whether the record of every stall was submitted, dropped or above the limit. Softirqs send
    /// no records; without rows, dropped events may have been stalls.
    pub fn covers_every_stall(&self, in_rows: bool) -> bool {
        let unknown = if in_rows { 0 } else { self.ring_dropped };
        let stalls = self.over_threshold..=self.over_threshold + unknown;
        self.stage == Stage::Softirq || stalls.contains(&self.records.total())
    }
}

impl StageCounts {
    /// What was counted since `earlier`, a ledger of the same run. What was in progress then counts
    /// as started since.
    #[must_use]
    fn since(&self, earlier: &Self) -> Self {
        let less = |now: u64, then: u64| now.saturating_sub(then);
        Self {
            stage: self.stage.clone(),
            started: less(self.started + earlier.in_progress, earlier.started),
            recorded: less(self.recorded, earlier.recorded),
            over_threshold: less(self.over_threshold, earlier.over_threshold),
            in_progress: self.in_progress,
            unmatched_start: less(self.unmatched_start, earlier.unmatched_start),
            backwards: less(self.backwards, earlier.backwards),
            unmatched_end: less(self.unmatched_end, earlier.unmatched_end),
            table_full: less(self.table_full, earlier.table_full),
            clamped: less(self.clamped, earlier.clamped),
            ring_submitted: less(self.ring_submitted, earlier.ring_submitted),
            ring_received: less(self.ring_received, earlier.ring_received),
            ring_dropped: less(self.ring_dropped, earlier.ring_dropped),
            records: self.records.since(&earlier.records),
            balanced: self.balanced,
        }
    }
}

impl RecordCounts {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            submitted: self.submitted.saturating_sub(earlier.submitted),
            received: self.received.saturating_sub(earlier.received),
            dropped: self.dropped.saturating_sub(earlier.dropped),
            limited: self.limited.saturating_sub(earlier.limited),
        }
    }

    /// Combines the counts of both sides.
    pub fn new(sent: &RecordLedger, received: u64) -> Self {
        Self { submitted: sent.submitted, received, dropped: sent.dropped, limited: sent.limited }
    }

    /// All records that the kernel side had to send, whether it could or not.
    pub fn total(&self) -> u64 {
        self.submitted + self.dropped + self.limited
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        self.submitted += other.submitted;
        self.received += other.received;
        self.dropped += other.dropped;
        self.limited += other.limited;
    }

    /// Whether all records that were sent arrived.
    pub fn is_balanced(&self) -> bool {
        self.submitted == self.received
    }
}

impl Ledger {
    /// Adds the ledger of another run. Does not depend on the order.
    pub fn add(&mut self, other: Self) {
        for counts in other.stages {
            match self.stages.iter_mut().find(|known| known.stage == counts.stage) {
                Some(known) => known.add(&counts),
                None => self.stages.push(counts),
            }
        }
        self.stages.sort_by(|a, b| a.stage.cmp(&b.stage));
        self.slots.capacity += other.slots.capacity;
        self.slots.used += other.slots.used;
        self.malformed_events += other.malformed_events;
        self.rows_that_differ = plus(self.rows_that_differ, other.rows_that_differ);
        self.collapses.add(&other.collapses);
        self.samples.add(&other.samples);
        self.malformed_records += other.malformed_records;
        for program in other.programs {
            match self.programs.iter_mut().find(|known| known.program == program.program) {
                Some(known) => {
                    known.recursion_misses = plus(known.recursion_misses, program.recursion_misses);
                    known.missed = plus(known.missed, program.missed);
                }
                None => self.programs.push(program),
            }
        }
        self.programs.sort_by(|a, b| a.program.cmp(&b.program));
        self.balanced &= other.balanced;
    }

    /// The ledger since `earlier`, one of the same run: the part of it that was in between.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let stages = self.stages.iter().map(|counts| {
            let before = earlier.stages.iter().find(|before| before.stage == counts.stage);
            before.map_or_else(|| counts.clone(), |before| counts.since(before))
        });
        let programs = self.programs.iter().map(|program| {
            let before = earlier.programs.iter().find(|known| known.program == program.program);
            let less = |now: Option<u64>, then: Option<u64>| {
                now.map(|now| now.saturating_sub(then.unwrap_or(0)))
            };
            ProgramCounts {
                program: program.program.clone(),
                recursion_misses: less(
                    program.recursion_misses,
                    before.and_then(|before| before.recursion_misses),
                ),
                missed: less(program.missed, before.and_then(|before| before.missed)),
            }
        });
        Self {
            stages: stages.collect(),
            malformed_events: self.malformed_events.saturating_sub(earlier.malformed_events),
            rows_that_differ: self.rows_that_differ,
            slots: self.slots,
            collapses: self.collapses.since(&earlier.collapses),
            samples: self.samples.since(&earlier.samples),
            malformed_records: self.malformed_records.saturating_sub(earlier.malformed_records),
            programs: programs.collect(),
            balanced: self.balanced,
        }
    }

    /// Adds the ledger of the time directly after this one, of the same run.
    pub fn continue_with(&mut self, next: Self) {
        let before = self.clone();
        self.slots = Slots::default();
        self.add(next.clone());
        for counts in &mut self.stages {
            let of_stage = |ledger: &Self| {
                ledger.stages.iter().find(|known| known.stage == counts.stage).cloned()
            };
            if let (Some(before), Some(next)) = (of_stage(&before), of_stage(&next)) {
                counts.started -= before.in_progress.min(counts.started);
                counts.in_progress = next.in_progress;
            }
        }
    }

    /// Checks every sum and sets `balanced`.
    #[must_use]
    pub fn closed(mut self) -> Self {
        self.balanced = self.malformed_events == 0
            && self.malformed_records == 0
            && self.rows_that_differ.unwrap_or(0) == 0
            && self.collapses.is_balanced()
            && self.samples.is_balanced()
            && self.stages.iter().all(|counts| counts.balanced);
        self
    }
}

/// The sum, as far as either is known.
fn plus(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(started: u64, in_progress: u64, dropped: u64) -> Ledger {
        let recorded = started - in_progress;
        let counts = StageCounts {
            over_threshold: recorded / 10,
            ..StageCounts::new(
                Stage::NetRx,
                &StageLedger::default(),
                &RecordLedger { dropped, ..RecordLedger::default() },
                UserCounts { started, recorded, in_progress, ..UserCounts::default() },
                true,
            )
        };
        let slots = Slots { capacity: 64, used: 7 };
        Ledger { stages: vec![counts], slots, ..Ledger::default() }
    }

    #[test]
    fn parts_of_a_run_add_up_to_it() {
        let moments = [ledger(101, 2, 0), ledger(211, 1, 3), ledger(499, 3, 5)];
        let mut sum = moments[0].clone();
        for pair in moments.windows(2) {
            let part = pair[1].since(&pair[0]);
            let counts = &part.stages[0];
            assert_eq!(counts.started, counts.recorded + counts.in_progress);
            sum.continue_with(part);
        }
        assert_eq!(sum, moments[2]);
    }

    fn balanced(stage: Stage, over_threshold: u64, ring_dropped: u64, in_rows: bool) -> bool {
        let recorded = 100;
        let started = recorded + if in_rows { 0 } else { ring_dropped };
        let cpus = StageLedger { ring_dropped, ..StageLedger::default() };
        let records = RecordLedger { submitted: 3, dropped: 2, limited: 5, reserved: 0 };
        let counted =
            UserCounts { started, recorded, over_threshold, records: 3, ..UserCounts::default() };
        StageCounts::new(stage, &cpus, &records, counted, in_rows).balanced
    }

    #[test]
    fn every_stall_has_its_record_or_a_reason() {
        assert!(balanced(Stage::NetRx, 10, 0, true));
        assert!(!balanced(Stage::NetRx, 9, 0, true));
        assert!(!balanced(Stage::NetRx, 11, 0, true));
        // Softirqs send no records.
        assert!(balanced(Stage::Softirq, 99, 0, true));
        // Dropped events may have been stalls.
        assert!(balanced(Stage::NetRx, 7, 3, false));
        assert!(!balanced(Stage::NetRx, 6, 3, false));
        assert!(!balanced(Stage::NetRx, 7, 3, true));
    }
}
