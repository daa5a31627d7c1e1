//! How long to measure.

use std::time::Duration;

/// Number and length of the slices.
pub(crate) struct Plan {
    pub(super) rounds: usize,
    pub(super) slice: Duration,
    /// Run everything once, only to check that it works.
    pub(super) quick: bool,
}
