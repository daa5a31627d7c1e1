//! Rare events: bounds of the ratio of two rates from the binomial distribution.
//!
//! Given the sum of both sides, the stalls of side 2 are binomial with probability
//! `N2 r / (N1 + N2 r)` if the ratio of the rates is `r`; the Clopper-Pearson bounds of that
//! probability give the bounds of `r`.

use statrs::distribution::{Beta, ContinuousCDF};

use super::counts::Estimate;
use crate::model::comparison::Approach;

/// Probability of each tail outside the interval.
const TAIL: f64 = 0.025;

/// Compares stalls per exposure, if stalls are independent events.
pub(super) fn ratio(stalls: [f64; 2], exposure: [f64; 2]) -> Estimate {
    let Bounds { low, high, p } = bounds(stalls, exposure);
    let rates = [0, 1].map(|side| stalls[side] / exposure[side]);
    let ratio = (rates[0] > 0.0).then(|| rates[1] / rates[0]);
    Estimate { ratio, low, high, p: Some(p), approach: Approach::Exact }
}

/// Bounds of a ratio, and the p-value if the true ratio is 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) p: f64,
}

/// Bounds of the rate after divided by the rate before. Counts may be fractional, because they may
/// have been divided by their dispersion.
pub(super) fn bounds(events: [f64; 2], exposure: [f64; 2]) -> Bounds {
    let [before, after] = events;
    // Converts the probability that an event is in the recording after to a ratio of rates.
    let ratio = |probability: f64| probability / (1.0 - probability) * exposure[0] / exposure[1];
    let quantile =
        |a: f64, b: f64, p: f64| Beta::new(a, b).map_or(f64::NAN, |beta| beta.inverse_cdf(p));
    let low = if after > 0.0 { ratio(quantile(after, before + 1.0, TAIL)) } else { 0.0 };
    let high =
        if before > 0.0 { ratio(quantile(after + 1.0, before, 1.0 - TAIL)) } else { f64::INFINITY };
    let even = exposure[1] / (exposure[0] + exposure[1]);
    let below = |a: f64, b: f64| Beta::new(a, b).map_or(1.0, |beta| beta.cdf(even));
    // P(X >= after) and P(X <= after) of the binomial distribution.
    let at_least = if after > 0.0 { below(after, before + 1.0) } else { 1.0 };
    let at_most = if before > 0.0 { 1.0 - below(after + 1.0, before) } else { 1.0 };
    Bounds { low, high, p: (2.0 * at_least.min(at_most)).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-3, "{found} is not {expected}");
    }

    #[test]
    fn bounds_are_those_of_clopper_and_pearson() {
        // R: binom.test(10, 30, 0.5): p = 0.09874, interval 0.1728742 to 0.5281200.
        let bounds = bounds([20.0, 10.0], [1.0, 1.0]);
        close(bounds.p, 0.098_737);
        close(bounds.low, 0.172_874_2 / (1.0 - 0.172_874_2));
        close(bounds.high, 0.528_12 / (1.0 - 0.528_12));
    }

    #[test]
    fn none_against_many_has_an_upper_bound() {
        // (1 - p)^15 = 0.025 at the bound.
        let found = bounds([15.0, 0.0], [2.0, 1.0]);
        let probability = 1.0 - 0.025_f64.powf(1.0 / 15.0);
        close(found.high, probability / (1.0 - probability) * 2.0);
        assert_eq!(found.low, 0.0);
        let found = bounds([15.0, 0.0], [1.0, 1.0]);
        close(found.p, 2.0 * 0.5_f64.powi(15));
    }

    #[test]
    fn nothing_against_nothing_says_nothing() {
        let found = bounds([0.0, 0.0], [1.0, 1.0]);
        assert_eq!((found.low, found.high, found.p), (0.0, f64::INFINITY, 1.0));
    }
}
