//! The order of an experiment's windows, and the pauses between them.
//!
//! After a lead-in window without the change, which the abort rule needs and which counts for
//! nothing else, windows come in pairs: one with the change, one without. Their order in each pair
//! and the pause before each window are random, so nothing periodic can line up with them
//! (Bojinov, Simchi-Levi and Zhao 2022). The same seed gives the same schedule.

use std::time::Duration;

/// The fewest pairs, unless a number is asked for.
pub const LEAST_PAIRS: u32 = 8;

/// What starting the tracer adds to a window, about.
const START: Duration = Duration::from_millis(400);

/// Pauses are up to this part of a window.
const PAUSE: u32 = 4;

/// One window to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whether the change is in place.
    pub changed: bool,
    /// The pause before the window.
    pub pause: Duration,
}

/// As many pairs as fit into `time`, but at least [`LEAST_PAIRS`].
pub fn pairs_within(time: Duration, window: Duration, settle: Duration) -> u32 {
    let rest = time.saturating_sub(window + START);
    let pair = of_pair(window, settle);
    let pairs = rest.as_secs_f64() / pair.as_secs_f64().max(1e-9);
    (pairs as u32).clamp(LEAST_PAIRS, 100_000)
}

/// How long an experiment takes, about.
pub fn duration(pairs: u32, window: Duration, settle: Duration) -> Duration {
    window + START + of_pair(window, settle) * pairs
}

/// A pair changes the setting once inside and, half of the time, once before.
fn of_pair(window: Duration, settle: Duration) -> Duration {
    (window + window / (2 * PAUSE) + START) * 2 + settle * 3 / 2
}

/// The windows after the lead-in.
pub fn steps(seed: u64, pairs: u32, window: Duration) -> Vec<Step> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut steps = Vec::new();
    for _ in 0..pairs {
        let first = random.bool();
        for changed in [first, !first] {
            steps.push(Step { changed, pause: window.mul_f64(random.f64() / f64::from(PAUSE)) });
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    #[test]
    fn each_pair_has_both_in_either_order() {
        let steps = steps(7, 200, WINDOW);
        let first = steps.chunks(2).filter(|pair| pair[0].changed).count();
        assert!(steps.chunks(2).all(|pair| pair[0].changed != pair[1].changed));
        assert!((60..=140).contains(&first), "{first}");
        assert!(steps.iter().all(|step| step.pause < WINDOW / PAUSE));
        assert_eq!(steps, super::steps(7, 200, WINDOW));
        assert_ne!(steps, super::steps(8, 200, WINDOW));
    }

    #[test]
    fn as_many_pairs_as_fit() {
        let settle = Duration::from_secs(2);
        let pairs = pairs_within(Duration::from_secs(600), WINDOW, settle);
        assert!(duration(pairs, WINDOW, settle) <= Duration::from_secs(600));
        assert!(duration(pairs + 1, WINDOW, settle) > Duration::from_secs(600));
        assert_eq!(pairs_within(Duration::from_secs(1), WINDOW, settle), LEAST_PAIRS);
    }
}
