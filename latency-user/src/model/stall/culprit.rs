//! Culprits: the functions that stalls were spent in, as `analysis` derives them from stacks.

use serde::{Deserialize, Serialize};

/// Functions with a smaller share of the time are not reported as culprits.
pub const MIN_SHARE: f64 = 0.01;

/// A function and its part of the time of stalls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Culprit {
    /// Name of the function.
    pub function: String,
    /// Samples whose culprit it is.
    pub samples: u64,
    /// Those samples in which it waited for a lock.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waiting_for_lock: u64,
    /// Its part of the time of the stalls, 0 to 1: what its samples stand for. The rest is that of
    /// other functions, time without a possible sample, and unexplained time; see
    /// [`StallTime`](super::time::StallTime).
    pub share: f64,
}

impl Culprit {
    /// Part of the time of the stalls in which it waited for a lock, 0 to 1; `None`: less than 1 %.
    pub fn lock_share(&self) -> Option<f64> {
        let share = self.share * self.waiting_for_lock as f64 / self.samples.max(1) as f64;
        (share >= MIN_SHARE).then_some(share)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
