//! Intervals: what happened between two snapshots.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    series::{Series, SeriesId},
    stall::{batch::StallBatch, time::CpuSteal},
};

/// All series over a period of time. `K` is [`SeriesId`] for live data and
/// [`SeriesKey`](super::series::SeriesKey) for files.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval<K = SeriesId> {
    /// Its start, counted from the start of the run by the wall clock.
    pub start: Duration,
    /// How long it lasted.
    pub duration: Duration,
    /// Series that recorded something, in their order.
    pub series: Vec<Series<K>>,
    /// Stalls that ended in it.
    pub batch: StallBatch,
    /// What the hypervisor took of each CPU, where it took something or a stall ended; `None`: not
    /// known.
    pub steal: Option<Vec<CpuSteal>>,
    /// Of which recordings it is the sum; `None`: it was measured.
    pub merged: Option<MergedTime>,
}

/// The time of an interval that is the sum of several recordings'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedTime {
    /// Number of recordings.
    pub recordings: u64,
    /// How long they were traced in it, in all, us.
    pub traced_us: u64,
}

impl<K> Interval<K> {
    /// An interval without stalls.
    pub fn new(start: Duration, duration: Duration, series: Vec<Series<K>>) -> Self {
        Self { start, duration, series, batch: StallBatch::default(), steal: None, merged: None }
    }

    /// Its end, counted from the start of the run.
    pub fn end(&self) -> Duration {
        self.start.saturating_add(self.duration)
    }
}
