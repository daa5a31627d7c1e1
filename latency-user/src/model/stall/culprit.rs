//! Culprits: the functions that stalls were spent in, as `analysis` tells them from stacks.

use serde::{Deserialize, Serialize};

/// Shares of stalled time below this are summed up as others.
pub const LEAST_SHARE: f64 = 0.01;

/// A function and its part of the samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Culprit {
    /// Name of the function.
    pub function: String,
    /// Samples of which it is the culprit.
    pub samples: u64,
    /// Those of them in which it waited for a lock.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waiting_for_lock: u64,
    /// Its part of all samples of stalls, 0 to 1.
    pub share: f64,
}

impl Culprit {
    /// Its part of all samples in which it waited for a lock, 0 to 1; `None`: it hardly did.
    pub fn lock_share(&self) -> Option<f64> {
        let share = self.share * self.waiting_for_lock as f64 / self.samples.max(1) as f64;
        (share >= LEAST_SHARE).then_some(share)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
