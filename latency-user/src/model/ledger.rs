//! The ledger: the sums that prove that nothing was lost unseen.

use std::borrow::Cow;

use latency_common::{
    stage::Stage,
    state::{RecordLedger, StageLedger},
};
use serde::{Deserialize, Serialize};

/// The ledgers of all stages of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// One entry for each stage that was timed.
    pub stages: Vec<StageBooks>,
    /// Events that the ring buffer handed over but that could not be understood.
    pub malformed_events: u64,
    /// With both transports at once: rows whose counts differ between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_that_differ: Option<u64>,
    /// Rows for queues and IRQs.
    #[serde(default)]
    pub slots: Slots,
    /// Records of slow calls of `tcp_collapse`.
    #[serde(default)]
    pub collapses: RecordBooks,
    /// Samples of stalls under way.
    #[serde(default)]
    pub samples: RecordBooks,
    /// Records that could not be understood.
    #[serde(default)]
    pub malformed_records: u64,
    /// What the kernel skipped of each program.
    #[serde(default)]
    pub programs: Vec<ProgramBooks>,
    /// Whether every stage's books balance, and those of records.
    pub balanced: bool,
}

/// Rows that are handed out when a queue or an IRQ is first seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// How many there were; those that found none left are in `table_full` of their stages.
    pub room: u64,
    /// How many were handed out.
    pub taken: u64,
}

/// The books of one kind of record, summed over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordBooks {
    /// Records that the kernel side sent.
    pub submitted: u64,
    /// Records that arrived.
    pub received: u64,
    /// Records that found the ring buffer full.
    pub dropped: u64,
    /// Records above the limit in a second.
    pub limited: u64,
}

/// What the kernel skipped of one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramBooks {
    /// Name of the program.
    pub program: String,
    /// Runs that the kernel skipped, because the program was at work on the CPU already; absent
    /// when the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recursion_misses: Option<u64>,
    /// Calls that a kprobe or kretprobe missed (`nmissed`); absent for other programs, and on
    /// kernels before 6.7, which do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}

/// What has been counted of a stage apart from the kernel side's own ledger.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Intervals that began.
    pub begins: u64,
    /// Intervals in rows, or received as events when there are no rows.
    pub recorded: u64,
    /// Those of them at or above the threshold.
    pub over_threshold: u64,
    /// Intervals under way.
    pub open: u64,
    /// Events received.
    pub events: u64,
    /// Records of stalls received.
    pub records: u64,
}

/// The books of one stage, summed over all CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageBooks {
    /// Name of the stage.
    pub stage: Cow<'static, str>,
    /// Intervals that began.
    pub begins: u64,
    /// Intervals that ended and are in a row or were received as events.
    pub recorded: u64,
    /// Those of them at or above the threshold: each of these stalls is to be in `records`.
    #[serde(default)]
    pub over_threshold: u64,
    /// Intervals under way when the books were read.
    pub open: u64,
    /// Begins that never met their end.
    pub begins_without_end: u64,
    /// Intervals that ended before they began.
    pub backwards: u64,
    /// Ends without a begin: not part of the balance.
    pub ends_without_begin: u64,
    /// Recorded in a catch-all row, because no slot was left.
    pub table_full: u64,
    /// Longer than the last bucket.
    pub clamped: u64,
    /// Events sent through the ring buffer.
    pub ring_submitted: u64,
    /// Events received from the ring buffer.
    pub ring_received: u64,
    /// Events that found the ring buffer full.
    pub ring_dropped: u64,
    /// Records of the stage's stalls.
    #[serde(default)]
    pub records: RecordBooks,
    /// `begins` equals `recorded + open + begins_without_end + backwards` (plus `ring_dropped`
    /// when only events are kept), `ring_submitted` equals `ring_received`, records that were
    /// submitted were received, and every stall is in `records` ([`Self::tell_every_stall`]).
    pub balanced: bool,
}

impl StageBooks {
    /// Sums up a stage. `in_rows`: intervals are counted in rows.
    pub fn new(
        stage: Stage,
        cpus: &StageLedger,
        records: &RecordLedger,
        counted: Counted,
        in_rows: bool,
    ) -> Self {
        let Counted { begins, recorded, over_threshold, open, events: received, .. } = counted;
        let records = RecordBooks::new(records, counted.records);
        let unknown = if in_rows { 0 } else { cpus.ring_dropped };
        let ended = recorded + open + cpus.begins_without_end + cpus.backwards + unknown;
        let mut books = Self {
            stage: stage.name().into(),
            begins,
            recorded,
            over_threshold,
            open,
            begins_without_end: cpus.begins_without_end,
            backwards: cpus.backwards,
            ends_without_begin: cpus.ends_without_begin,
            table_full: cpus.table_full,
            clamped: cpus.clamped,
            ring_submitted: cpus.ring_submitted,
            ring_received: received,
            ring_dropped: cpus.ring_dropped,
            records,
            balanced: false,
        };
        books.balanced = books.begins == ended
            && books.ring_submitted == books.ring_received
            && books.records.is_balanced()
            && books.tell_every_stall(in_rows);
        books
    }

    /// Whether every stall was submitted, dropped or above the limit. Softirqs send no records;
    /// without rows, events that were dropped may have been stalls.
    pub fn tell_every_stall(&self, in_rows: bool) -> bool {
        let unknown = if in_rows { 0 } else { self.ring_dropped };
        let stalls = self.over_threshold..=self.over_threshold + unknown;
        self.stage == Stage::Softirq.name() || stalls.contains(&self.records.told())
    }
}

impl RecordBooks {
    /// Puts both sides together.
    pub fn new(sent: &RecordLedger, received: u64) -> Self {
        Self { submitted: sent.submitted, received, dropped: sent.dropped, limited: sent.limited }
    }

    /// What came to the kernel side's notice: sent, or not and why.
    pub fn told(&self) -> u64 {
        self.submitted + self.dropped + self.limited
    }

    /// Whether all that were sent arrived.
    pub fn is_balanced(&self) -> bool {
        self.submitted == self.received
    }
}

impl Ledger {
    /// Whether every sum holds.
    #[must_use]
    pub fn closed(mut self) -> Self {
        self.balanced = self.malformed_events == 0
            && self.malformed_records == 0
            && self.rows_that_differ.unwrap_or(0) == 0
            && self.collapses.is_balanced()
            && self.samples.is_balanced()
            && self.stages.iter().all(|books| books.balanced);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balanced(stage: Stage, over_threshold: u64, ring_dropped: u64, in_rows: bool) -> bool {
        let recorded = 100;
        let begins = recorded + if in_rows { 0 } else { ring_dropped };
        let cpus = StageLedger { ring_dropped, ..StageLedger::default() };
        let records = RecordLedger { submitted: 3, dropped: 2, limited: 5, reserved: 0 };
        let counted =
            Counted { begins, recorded, over_threshold, records: 3, ..Counted::default() };
        StageBooks::new(stage, &cpus, &records, counted, in_rows).balanced
    }

    #[test]
    fn every_stall_has_its_record_or_a_reason() {
        assert!(balanced(Stage::NetRx, 10, 0, true));
        assert!(!balanced(Stage::NetRx, 9, 0, true));
        assert!(!balanced(Stage::NetRx, 11, 0, true));
        // It sends none.
        assert!(balanced(Stage::Softirq, 99, 0, true));
        // Events that were dropped may have been stalls.
        assert!(balanced(Stage::NetRx, 7, 3, false));
        assert!(!balanced(Stage::NetRx, 6, 3, false));
        assert!(!balanced(Stage::NetRx, 7, 3, true));
    }
}
