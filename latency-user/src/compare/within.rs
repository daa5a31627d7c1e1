//! Two single recordings: the intervals of each are the units.
//!
//! Stalls cluster in time, so single intervals are not independent. Each side is cut into groups of
//! equal length, and the logarithms of the groups' rates are compared by Welch's t-test (Ibragimov
//! and Müller 2010: t-statistics of few groups are valid under dependence within groups, and with
//! heavy tails).
//!
//! **How long a group is** follows from the data. While neighbouring intervals show no correlation,
//! the shorter side has up to [`MOST_GROUPS`] groups, with two stalls each on average. If they do,
//! it has [`FEW_GROUPS`], and the variance is multiplied by what the means of so few groups of a
//! process with correlation [`CORRELATION`] from second to second understate it by. Short
//! recordings hide correlation, so less of it is tolerated in them.
//!
//! The variance is never below Poisson's, `1 / K1 + 1 / K2`, and the exact bounds of [`exact`] must
//! agree. With fewer than [`LEAST_STALLS`] stalls on a side only those count, with the counts
//! divided by their dispersion: by how much more they vary than independent events, if both sides
//! had the mean of both.

use super::{
    counts::{Counts, Estimate},
    exact,
};
use crate::model::comparison::Approach;

/// A recording with fewer parts cannot show how its stalls cluster.
pub(super) const LEAST_PARTS: usize = 5;

/// Rarer stalls are compared by exact bounds.
const LEAST_STALLS: f64 = 10.0;

/// Groups of a side without visible correlation.
const MOST_GROUPS: f64 = 20.0;

/// Groups of a side with correlation.
const FEW_GROUPS: f64 = 4.0;

/// The correlation of neighbouring parts that long groups allow for.
const CORRELATION: f64 = 0.9;

/// Distances between parts, and the weight of each, at which correlation is looked for.
const WEIGHTS: [f64; 5] = [0.8, 0.64, 0.512, 0.4096, 0.327_68];

/// Compares stalls per exposure. Both sides have parts of about equal length.
pub(super) fn ratio(sides: &[Counts; 2]) -> Estimate {
    let stalls = sides.each_ref().map(Counts::sum);
    let exposure = sides.each_ref().map(Counts::all_exposure);
    if exposure.contains(&0.0) {
        return Estimate::NONE;
    }
    if stalls == [0.0; 2] {
        return Estimate { p: Some(1.0), ..Estimate::NONE };
    }
    if sides.iter().any(|side| side.stalls.len() < LEAST_PARTS) {
        return exact::ratio(stalls, exposure);
    }
    if stalls[0].min(stalls[1]) < LEAST_STALLS {
        let shorter = sides[0].stalls.len().min(sides[1].stalls.len()) as f64;
        let dispersion = dispersion(sides, correlation(sides) > tolerated(shorter));
        return exact::ratio(stalls.map(|n| n / dispersion), exposure);
    }
    grouped(sides, stalls).or_weaker(exact::ratio(stalls, exposure))
}

fn grouped(sides: &[Counts; 2], stalls: [f64; 2]) -> Estimate {
    let parts = sides.each_ref().map(|side| side.stalls.len() as f64);
    let shorter = parts[0].min(parts[1]);
    let is_correlated = correlation(sides) > tolerated(shorter);
    let groups = match is_correlated {
        true => FEW_GROUPS,
        false => (stalls[0].min(stalls[1]) / 2.0).floor().clamp(LEAST_PARTS as f64, MOST_GROUPS),
    };
    let length = shorter / groups;
    let found = [0, 1].map(|side| {
        let groups = (parts[side] / length).round().clamp(2.0, parts[side]) as usize;
        let logs = log_rates(&sides[side], groups);
        let (mean, variance) = mean_and_variance(&logs);
        let inflation = match is_correlated {
            true => understatement(groups, (sides[side].stalls.len() / groups).max(1)),
            false => 1.0,
        };
        let of_mean = variance / groups as f64 * inflation;
        (mean, of_mean.max(1.0 / stalls[side]), groups as f64 - 1.0)
    });
    let [(before, v0, df0), (after, v1, df1)] = found;
    let freedom = (v0 + v1).powi(2) / (v0.powi(2) / df0 + v1.powi(2) / df1);
    Estimate::of_log(after - before, (v0 + v1).sqrt(), freedom, Approach::Groups)
}

/// The logarithms of the rates of `groups` groups. Half a stall more keeps those of empty groups
/// finite, and the mean almost unbiased.
fn log_rates(side: &Counts, groups: usize) -> Vec<f64> {
    let parts = side.stalls.len();
    let rate = |group: usize| {
        let range = group * parts / groups..(group + 1) * parts / groups;
        let sum = |of: &[f64]| of[range.clone()].iter().sum::<f64>();
        let exposure = sum(&side.exposure);
        (exposure > 0.0).then(|| ((sum(&side.stalls) + 0.5) / exposure).ln())
    };
    (0..groups).filter_map(rate).collect()
}

pub(super) fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, squares / (n - 1.0).max(1.0))
}

/// The weighted correlation of neighbouring parts in multiples of its standard error. Square roots
/// of counts have about the same variance at all rates.
fn correlation(sides: &[Counts; 2]) -> f64 {
    let (mut products, mut squares, mut parts) = ([0.0; WEIGHTS.len()], 0.0, 0.0);
    for side in sides {
        let rate = side.sum() / side.all_exposure();
        let root = |n: f64| (n + 0.375).sqrt();
        let pairs = side.stalls.iter().zip(&side.exposure);
        let mut off: Vec<f64> = pairs.map(|(k, n)| root(*k) - root(rate * n)).collect();
        let mean = off.iter().sum::<f64>() / off.len() as f64;
        off.iter_mut().for_each(|value| *value -= mean);
        squares += off.iter().map(|value| value * value).sum::<f64>();
        parts += off.len() as f64;
        for (at, product) in products.iter_mut().enumerate() {
            let later = off.iter().skip(at + 1);
            *product += off.iter().zip(later).map(|(a, b)| a * b).sum::<f64>();
        }
    }
    if squares == 0.0 {
        return 0.0;
    }
    // The mean was taken from the same parts, which lowers each correlation by about 1 / parts.
    let bias = 2.0 / parts;
    let sum: f64 = products.iter().zip(WEIGHTS).map(|(p, w)| w * (p / squares + bias)).sum();
    sum * parts.sqrt() / WEIGHTS.iter().map(|w| w * w).sum::<f64>().sqrt()
}

/// The correlation, in standard errors, up to which parts pass for independent.
fn tolerated(parts: f64) -> f64 {
    (0.25 + 1.4 * (parts - 30.0) / 90.0).clamp(0.25, 1.65)
}

/// By how much the variance among `groups` means of `length` parts understates that of their mean,
/// if the correlation of parts falls as [`CORRELATION`] to the power of their distance.
fn understatement(groups: usize, length: usize) -> f64 {
    let covariance = |distance: usize| -> f64 {
        let power = |at: i64| CORRELATION.powi(at.unsigned_abs() as i32);
        let length = length as i64;
        let sum: f64 = (1 - length..length)
            .map(|shift| (length - shift.abs()) as f64 * power(distance as i64 * length + shift))
            .sum();
        sum / (length * length) as f64
    };
    let n = groups as f64;
    let one = covariance(0);
    // Beyond a few groups nothing is left of it.
    let far = groups.min(2 + 200 / length);
    let others: f64 = (1..far).map(|at| (1.0 - at as f64 / n) * covariance(at)).sum();
    let of_mean = (one + 2.0 * others) / n;
    of_mean * (n - 1.0) / (one - of_mean)
}

/// How much more the sum of a side varies than independent events would: at least 1.
///
/// Rates that vary by a factor add its squared coefficient of variation, times the expected count,
/// to Poisson's variance. Both sides would expect the mean of both, if nothing had changed.
fn dispersion(sides: &[Counts; 2], is_correlated: bool) -> f64 {
    let shorter = sides[0].stalls.len().min(sides[1].stalls.len());
    let long = ((shorter as f64).sqrt() as usize).max(2);
    let quarter = (shorter / FEW_GROUPS as usize).max(1);
    let understated = understatement(FEW_GROUPS as usize, quarter);
    let lengths = [(1, 1.0), (long, 1.0), (quarter, understated)];
    let expected = sides.iter().map(Counts::sum).sum::<f64>() / 2.0;
    let parts = sides.iter().map(|side| side.stalls.len()).sum::<usize>() as f64 / 2.0;
    let used = if is_correlated { &lengths[..] } else { &lengths[..2] };
    let of = |(length, factor): &(usize, f64)| {
        1.0 + variation(sides, *length) * factor * expected * *length as f64 / parts
    };
    used.iter().map(of).fold(1.0, f64::max)
}

/// The squared coefficient of variation of the rate of groups of `length` parts, beyond Poisson's.
fn variation(sides: &[Counts; 2], length: usize) -> f64 {
    let (mut excess, mut weight) = (0.0, 0.0);
    for side in sides {
        let rate = side.sum() / side.all_exposure();
        if rate == 0.0 {
            continue;
        }
        let groups = side.stalls.chunks(length).zip(side.exposure.chunks(length));
        for (stalls, exposure) in groups {
            let expected = rate * exposure.iter().sum::<f64>();
            if expected > 0.0 {
                excess += (stalls.iter().sum::<f64>() - expected).powi(2) / expected - 1.0;
                weight += expected;
            }
        }
        // The rate was taken from the same groups.
        excess += 1.0;
        weight -= rate * side.all_exposure() * length as f64 / side.stalls.len() as f64;
    }
    if weight > 0.0 { (excess / weight).max(0.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn independent_parts_are_not_understated() {
        // numpy, by the covariance matrix of all values.
        assert!((understatement(4, 30) - 1.478).abs() < 0.001, "{}", understatement(4, 30));
        assert!((understatement(4, 1000) - 1.0096).abs() < 0.0001);
    }

    #[test]
    fn few_stalls_are_no_proof_where_their_rate_wanders() {
        let side = |stalls: &[f64]| Counts {
            stalls: stalls.to_vec(),
            exposure: vec![1000.0; stalls.len()],
        };
        let calm = side(&[[1.0, 0.0, 0.0, 0.0, 0.0]; 6].concat());
        let even = side(&[1.0; 30]);
        let burst = side(&[[0.0; 10], [3.0; 10], [0.0; 10]].concat());
        let p = |before: &Counts| ratio(&[before.clone(), calm.clone()]).p.unwrap();
        assert!(p(&even) < 0.001, "{}", p(&even));
        assert!(p(&burst) > 0.05, "{}", p(&burst));
    }

    #[test]
    fn a_slow_wave_is_correlated_and_alternation_is_not() {
        let side = |of: fn(usize) -> f64| Counts {
            stalls: (0..120).map(of).collect(),
            exposure: vec![1000.0; 120],
        };
        let wave = side(|at| if at % 60 < 30 { 9.0 } else { 1.0 });
        assert!(correlation(&[wave.clone(), wave]) > tolerated(120.0));
        let zigzag = side(|at| if at % 2 == 0 { 9.0 } else { 1.0 });
        assert!(correlation(&[zigzag.clone(), zigzag]) < tolerated(120.0));
    }
}
