//! Intervals: what happened between two snapshots.

use std::time::{Duration, SystemTime};

use super::{distribution::Distribution, series::Series};

/// All series over a stretch of time.
#[derive(Clone, Debug)]
pub struct Interval {
    /// When it began.
    pub began_at: SystemTime,
    /// How long it lasted.
    pub duration: Duration,
    /// Series that recorded something, in their order.
    pub series: Vec<(Series, Distribution)>,
}
