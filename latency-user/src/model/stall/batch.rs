//! A batch of stalls: everything that is known of the stalls of one interval.

use serde::{Deserialize, Serialize};

use super::{Stall, collapse::Collapse, time::LocatedTime};
use crate::model::{series::labels::Labels, stage::StageName};

/// Stalls, slow collapses and stacks that belong together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StallBatch {
    /// Stalls that ended, sorted by end.
    pub stalls: Vec<Stall>,
    /// Slow calls of `tcp_collapse` that ended.
    pub collapses: Vec<Collapse>,
    /// Stacks of those stalls. Each sample counts once, even if a poll's stall lies inside a run's.
    pub stacks: Vec<LocatedStack>,
    /// The time of those stalls. Each moment of a CPU counts once.
    pub times: Vec<LocatedTime>,
}

/// A kernel stack with the number of samples that found it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stack {
    /// Names of functions, the deepest first.
    pub frames: Vec<String>,
    /// Number of samples.
    pub count: u64,
}

/// A stack with the stall that its samples count for: the longest one that covers them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocatedStack {
    /// The stack.
    #[serde(flatten)]
    pub stack: Stack,
    /// Stage of the stall; absent in recordings of schema 1, and in merged ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<StageName>,
    /// Its queue or IRQ.
    #[serde(flatten)]
    pub labels: Labels,
}

impl StallBatch {
    /// Whether it has neither stalls, collapses nor stacks.
    pub fn is_empty(&self) -> bool {
        self.stalls.is_empty() && self.collapses.is_empty() && self.stacks.is_empty()
    }
}
