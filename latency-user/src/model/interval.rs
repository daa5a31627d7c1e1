//! Intervals: what happened between two snapshots.

use std::time::{Duration, SystemTime};

use super::{
    distribution::Distribution,
    series::Series,
    stall::{Stack, Stall, collapse::Collapse},
};

/// All series over a stretch of time.
#[derive(Clone, Debug)]
pub struct Interval {
    /// When it began.
    pub began_at: SystemTime,
    /// How long it lasted.
    pub duration: Duration,
    /// Series that recorded something, in their order.
    pub series: Vec<(Series, Distribution)>,
    /// Stalls that ended in it, by their ends.
    pub stalls: Vec<Stall>,
    /// Slow calls of `tcp_collapse` that ended in it.
    pub collapses: Vec<Collapse>,
    /// Stacks of those stalls, each sample once, although a poll's stall lies inside a run's.
    pub stacks: Vec<Stack>,
}
