//! Intervals: what happened between two snapshots.

use std::time::Duration;

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
}

impl<K> Interval<K> {
    /// An interval without stalls.
    pub fn new(start: Duration, duration: Duration, series: Vec<Series<K>>) -> Self {
        Self { start, duration, series, batch: StallBatch::default(), steal: None }
    }

    /// Its end, counted from the start of the run.
    pub fn end(&self) -> Duration {
        self.start.saturating_add(self.duration)
    }
}
