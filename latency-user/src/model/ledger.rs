//! The ledger: the sums that prove that nothing was lost unseen.

use std::borrow::Cow;

use latency_common::{stage::Stage, state::StageLedger};
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
    /// Whether every stage's books balance.
    pub balanced: bool,
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
    /// `begins` equals `recorded + open + begins_without_end + backwards` (plus `ring_dropped`
    /// when only events are kept), and `ring_submitted` equals `ring_received`.
    pub balanced: bool,
}

impl StageBooks {
    /// Sums up a stage.
    ///
    /// `recorded` counts what is in rows (`in_rows`) or was received as events.
    pub fn new(
        stage: Stage,
        cpus: &StageLedger,
        recorded: u64,
        open: u64,
        received: u64,
        in_rows: bool,
    ) -> Self {
        let ended = recorded
            + open
            + cpus.begins_without_end
            + cpus.backwards
            + if in_rows { 0 } else { cpus.ring_dropped };
        Self {
            stage: stage.name().into(),
            begins: cpus.begins,
            recorded,
            open,
            begins_without_end: cpus.begins_without_end,
            backwards: cpus.backwards,
            ends_without_begin: cpus.ends_without_begin,
            table_full: cpus.table_full,
            clamped: cpus.clamped,
            ring_submitted: cpus.ring_submitted,
            ring_received: received,
            ring_dropped: cpus.ring_dropped,
            balanced: cpus.begins == ended && cpus.ring_submitted == received,
        }
    }
}

impl Ledger {
    /// Puts the stages' books together.
    pub fn new(
        stages: Vec<StageBooks>,
        malformed_events: u64,
        rows_that_differ: Option<u64>,
    ) -> Self {
        let balanced = malformed_events == 0
            && rows_that_differ.unwrap_or(0) == 0
            && stages.iter().all(|books| books.balanced);
        Self { stages, malformed_events, rows_that_differ, balanced }
    }
}
