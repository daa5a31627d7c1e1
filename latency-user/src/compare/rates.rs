//! The ratio of two rates with its confidence interval.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{MIN_PARTS, bootstrap::Resamples, counts::Counts, exact};
use crate::model::comparison::Approach;

/// Events that occur in fewer parts of a side are too rare to be resampled.
pub(super) const MIN_ACTIVE: usize = 10;

/// A rate after divided by the rate before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ratio {
    pub(super) rates: [f64; 2],
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) p: Option<f64>,
    pub(super) approach: Approach,
}

/// Compares events per exposure.
pub(super) fn ratio(sides: &[Counts; 2], resamples: &[Resamples; 2]) -> Ratio {
    let events = sides.each_ref().map(|side| side.events.iter().sum::<f64>());
    let exposure = sides.each_ref().map(|side| side.exposure.iter().sum::<f64>());
    let rates = [0, 1].map(|side| events[side] / exposure[side].max(f64::MIN_POSITIVE));
    let none = Ratio { rates, low: 0.0, high: f64::INFINITY, p: None, approach: Approach::None };
    if exposure.contains(&0.0) {
        return none;
    }
    if sides.iter().any(|side| side.events.len() < MIN_PARTS) {
        let exact::Bounds { low, high, p } = exact::bounds(events, exposure);
        return Ratio { rates, low, high, p: Some(p), approach: Approach::Exact };
    }
    let active = |side: &Counts| side.events.iter().filter(|n| **n > 0.0).count();
    if sides.iter().map(active).min().unwrap_or(0) < MIN_ACTIVE {
        if events == [0.0; 2] {
            return Ratio { p: Some(1.0), ..none };
        }
        let dispersion = [0, 1].map(|side| dispersion(&sides[side], resamples[side].length));
        let dispersion = dispersion[0].max(dispersion[1]);
        let found = exact::bounds(events.map(|n| n / dispersion), exposure);
        return Ratio {
            rates,
            low: found.low,
            high: found.high,
            p: Some(found.p),
            approach: Approach::Exact,
        };
    }
    let theta = (rates[1] / rates[0]).ln();
    let error = [0, 1].map(|side| {
        // Blocks vary around the mean of the recording, not around the true mean, which costs one
        // degree of freedom.
        let blocks = resamples[side].blocks;
        deviation(resamples[side].log_rates(&sides[side])).powi(2) * blocks / (blocks - 1.0)
    });
    let error = error.iter().sum::<f64>().sqrt();
    let freedom = (resamples[0].blocks + resamples[1].blocks - 2.0).max(1.0);
    let Ok(student) = StudentsT::new(0.0, 1.0, freedom) else { return none };
    let reach = student.inverse_cdf(0.975) * error;
    let p = if theta == 0.0 { 1.0 } else { 2.0 * student.cdf(-theta.abs() / error.max(1e-12)) };
    Ratio {
        rates,
        low: (theta - reach).exp(),
        high: (theta + reach).exp(),
        p: Some(p),
        approach: Approach::Blocks,
    }
}

/// Standard deviation.
fn deviation(values: impl Iterator<Item = f64>) -> f64 {
    let (mut n, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for value in values {
        n += 1.0;
        let off = value - mean;
        mean += off / n;
        squares += off * (value - mean);
    }
    f64::sqrt(squares / (n - 1.0_f64).max(1.0))
}

/// How much more the counts vary than independent events would: at least 1.
fn dispersion(counts: &Counts, length: usize) -> f64 {
    [1, length].into_iter().map(|length| pearson(counts, length)).fold(1.0, f64::max)
}

/// Pearson's statistic per degree of freedom, over blocks of `length` parts.
fn pearson(counts: &Counts, length: usize) -> f64 {
    let sum = |of: &[f64]| of.chunks(length).map(|block| block.iter().sum()).collect::<Vec<f64>>();
    let (events, exposure) = (sum(&counts.events), sum(&counts.exposure));
    let rate = events.iter().sum::<f64>() / exposure.iter().sum::<f64>();
    if rate == 0.0 || events.len() < 2 {
        return 1.0;
    }
    let terms = events.iter().zip(&exposure).filter(|(_, n)| **n > 0.0).map(|(k, n)| {
        let expected = rate * n;
        (k - expected).powi(2) / expected
    });
    terms.sum::<f64>() / (events.len() - 1) as f64
}
