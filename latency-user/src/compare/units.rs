//! Several recordings a side: windows of an experiment, recordings, or hosts are the units.
//!
//! What a change is applied to is the unit: seconds of one window share everything that makes
//! windows differ, so they say nothing on chance between windows (Bennett, Parpia, Hayes and
//! Cousens 2002; Hayes and Moulton, chapter 10). Each unit gives one number,
//! `ln((stalls + 0.5) / events)`. The change's effect on it is estimated by least squares, together
//! with a linear trend in time if there are [`TREND`] units or more and the two sides take turns. Of
//! windows in pairs, the error is at least that of the differences within pairs. Hosts that are on both sides are compared with themselves.
//!
//! The exact bounds of the sums ([`exact`]) must agree: units never vary less than Poisson's.

use std::collections::{BTreeMap, BTreeSet};

use latency_common::stage::Stage;

use super::{counts::Estimate, exact, within::mean_and_variance};
use crate::{
    model::{
        comparison::{Approach, UnitKind},
        distribution::Distribution,
    },
    recording::loaded::LoadedRecording,
};

/// Fewer units in all give no verdict.
pub(super) const LEAST_UNITS: usize = 5;

/// Fewer units on a side give no verdict.
pub(super) const LEAST_A_SIDE: usize = 2;

/// With fewer units, a trend cannot be told from the change.
const TREND: usize = 8;

/// Sides whose times are more correlated than this do not take turns.
const TURNS: f64 = 0.5;

/// What one unit counted of a stage or series.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UnitCount {
    /// Events.
    pub events: u64,
    /// Stalls that decide: without those of the hypervisor.
    pub stalls: u64,
}

/// A window, a recording, or a host on one side.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    /// The host; `None`: not known.
    pub host: Option<String>,
    /// Whether the change was in place.
    pub changed: bool,
    /// The number of its pair; `None`: it is in none.
    pub pair: Option<usize>,
    /// The middle of its time, seconds since the epoch.
    pub at_s: f64,
    /// How long it was measured, seconds.
    pub seconds: f64,
    /// What it counted, by the name of a stage or series.
    pub counts: BTreeMap<String, UnitCount>,
}

/// The test of one stage or series.
#[derive(Clone, Copy, Debug)]
pub struct UnitTest {
    /// Stalls per event, or per second where a unit has no event.
    pub estimate: Estimate,
    /// The p-value: of a change that shows per event and per second.
    pub p: Option<f64>,
    /// The variance of a unit's logarithm that neither change nor trend explain.
    pub variance: f64,
}

/// What a recording counted at or above a threshold, by stage and, in logs of other programs, by
/// series.
pub(super) fn of_recording(recording: &LoadedRecording, changed: bool, threshold_ns: u64) -> Unit {
    let mut counts: BTreeMap<String, UnitCount> = BTreeMap::new();
    let mut add = |name: String, distribution: &Distribution, stolen: u64| {
        let count = counts.entry(name).or_default();
        let stalls = super::at_or_above(recording, distribution, threshold_ns);
        count.events += distribution.count();
        count.stalls += stalls;
        count.stalls -= stolen.min(count.stalls);
    };
    for (key, total) in &recording.totals.totals.series {
        match key.known() {
            Some(id) => add(format!("stage={}", id.stage.name()), &total.distribution, 0),
            None => add(key.tag(), &total.distribution, 0),
        }
    }
    let parts = recording.parts.parts();
    for stage in Stage::ALL {
        let stolen = parts.iter().map(|part| part.stolen(stage)).sum::<u64>();
        if stolen > 0 {
            add(format!("stage={}", stage.name()), &Distribution::default(), stolen);
        }
    }
    let seconds = parts.iter().map(|part| part.seconds).sum::<f64>();
    let start = recording.totals.started().unwrap_or_default().as_secs_f64();
    let host = recording.totals.run.as_ref().map(|run| run.host.clone());
    Unit { host, changed, pair: None, at_s: start + seconds / 2.0, seconds, counts }
}

/// Adds up the units of each host and side.
pub(super) fn by_host(units: Vec<Unit>) -> Vec<Unit> {
    let mut hosts: BTreeMap<(bool, Option<String>), Unit> = BTreeMap::new();
    for unit in units {
        let key = (unit.changed, unit.host.clone());
        let Some(sum) = hosts.get_mut(&key) else {
            hosts.insert(key, unit);
            continue;
        };
        sum.at_s = (sum.at_s * sum.seconds + unit.at_s * unit.seconds)
            / (sum.seconds + unit.seconds).max(1e-9);
        sum.seconds += unit.seconds;
        for (name, count) in unit.counts {
            let known = sum.counts.entry(name).or_default();
            known.events += count.events;
            known.stalls += count.stalls;
        }
    }
    hosts.into_values().collect()
}

/// Whether there are enough units for a test.
pub fn are_enough(units: &[Unit]) -> bool {
    let changed = units.iter().filter(|unit| unit.changed).count();
    units.len() >= LEAST_UNITS && changed.min(units.len() - changed) >= LEAST_A_SIDE
}

/// The names of all stages and series with stalls.
pub(super) fn names(units: &[Unit]) -> BTreeSet<&str> {
    let counts = units.iter().flat_map(|unit| &unit.counts);
    counts.filter(|(_, count)| count.stalls > 0).map(|(name, _)| name.as_str()).collect()
}

/// Tests one stage or series.
pub fn test(units: &[Unit], name: &str, kind: UnitKind) -> UnitTest {
    let count = |unit: &Unit| unit.counts.get(name).copied().unwrap_or_default();
    let has_events = units.iter().all(|unit| count(unit).events > 0);
    let events = |unit: &Unit| match has_events {
        true => count(unit).events as f64,
        false => unit.seconds,
    };
    let (estimate, variance) = estimate(units, kind, &|unit| count(unit).stalls as f64, &events);
    let in_time =
        self::estimate(units, kind, &|unit| count(unit).stalls as f64, &|unit| unit.seconds).0;
    UnitTest { estimate, p: super::both(&estimate, &in_time), variance }
}

/// A count of each unit, per exposure, tested: the ratio of the sides, and the variance of a unit.
fn estimate(
    units: &[Unit],
    kind: UnitKind,
    count: &dyn Fn(&Unit) -> f64,
    exposure: &dyn Fn(&Unit) -> f64,
) -> (Estimate, f64) {
    let log = |unit: &Unit| ((count(unit) + 0.5) / exposure(unit)).ln();
    let found = match kind {
        UnitKind::Host if are_paired(units) => paired(units, &log),
        _ => regression(units, &units.iter().map(log).collect::<Vec<f64>>()),
    };
    let side = |changed: bool| units.iter().filter(move |unit| unit.changed == changed);
    let sums = [false, true].map(|changed| side(changed).map(count).sum::<f64>());
    let exposures = [false, true].map(|changed| side(changed).map(exposure).sum::<f64>());
    if sums == [0.0; 2] {
        return (Estimate { p: Some(1.0), ..Estimate::NONE }, 0.0);
    }
    let exact = exact::ratio(sums, exposures);
    let both = found.0.or_weaker(exact);
    if !sums.contains(&0.0) {
        return (both, found.1);
    }
    // Half a stall more a unit is no estimate of none.
    let (low, high) = (exact.low.min(both.low), exact.high.max(both.high));
    (Estimate { ratio: exact.ratio, low, high, ..both }, found.1)
}

/// Whether hosts are on both sides.
fn are_paired(units: &[Unit]) -> bool {
    pairs(units, &|_| 0.0).len() >= 3
}

/// After minus before of each host that is on both sides.
fn pairs(units: &[Unit], value: &dyn Fn(&Unit) -> f64) -> Vec<f64> {
    let side = |changed: bool| -> BTreeMap<&str, f64> {
        let units = units.iter().filter(|unit| unit.changed == changed);
        units.filter_map(|unit| Some((unit.host.as_deref()?, value(unit)))).collect()
    };
    let (before, after) = (side(false), side(true));
    after.iter().filter_map(|(host, after)| Some(after - before.get(host)?)).collect()
}

fn paired(units: &[Unit], value: &dyn Fn(&Unit) -> f64) -> (Estimate, f64) {
    let differences = pairs(units, value);
    let (mean, variance) = mean_and_variance(&differences);
    let n = differences.len() as f64;
    let estimate = Estimate::of_log(mean, (variance / n).sqrt(), n - 1.0, Approach::Paired);
    (estimate, variance / 2.0)
}

/// Least squares: the values of units (logarithms) on the change, and on time where a trend can be
/// told from it. Also returns the variance of a unit that neither explains.
pub fn regression(units: &[Unit], logs: &[f64]) -> (Estimate, f64) {
    let n = units.len() as f64;
    let centred = |mut values: Vec<f64>| -> Vec<f64> {
        let mean = values.iter().sum::<f64>() / n;
        values.iter_mut().for_each(|value| *value -= mean);
        values
    };
    let of_units = |of: fn(&Unit) -> f64| centred(units.iter().map(of).collect());
    let mut change = of_units(|unit| f64::from(u8::from(unit.changed)));
    let time = of_units(|unit| unit.at_s);
    let mut values = centred(logs.to_vec());
    let mut freedom = n - 2.0;
    let turns = dot(&change, &time).abs() / (dot(&change, &change) * dot(&time, &time)).sqrt();
    if units.len() >= TREND && turns <= TURNS {
        // Both without their trend: the slope of the rest is that of the regression on both.
        without(&mut change, &time);
        without(&mut values, &time);
        freedom -= 1.0;
    }
    let weight = dot(&change, &change);
    if weight == 0.0 || freedom < 1.0 {
        return (Estimate::NONE, 0.0);
    }
    let slope = dot(&change, &values) / weight;
    let rest: f64 = values.iter().zip(&change).map(|(y, x)| (y - slope * x).powi(2)).sum();
    let variance = rest / freedom;
    // The order is random within pairs only. Where a pair's windows differ more than others do, the
    // pairs tell by how much chance can.
    let squared_error = (variance / weight).max(of_pairs(units, logs));
    (Estimate::of_log(slope, squared_error.sqrt(), freedom, Approach::Regression), variance)
}

/// The squared error of the mean difference within pairs; 0 with fewer than three.
fn of_pairs(units: &[Unit], logs: &[f64]) -> f64 {
    let mut pairs: BTreeMap<usize, [Option<f64>; 2]> = BTreeMap::new();
    for (unit, log) in units.iter().zip(logs) {
        if let Some(pair) = unit.pair {
            pairs.entry(pair).or_default()[usize::from(unit.changed)] = Some(*log);
        }
    }
    let differences = pairs.into_values().filter_map(|[without, with]| Some(with? - without?));
    let differences: Vec<f64> = differences.collect();
    match differences.len() {
        ..3 => 0.0,
        pairs => mean_and_variance(&differences).1 / pairs as f64,
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Takes the part of `values` that is proportional to `of` away.
fn without(values: &mut [f64], of: &[f64]) {
    let slope = dot(values, of) / dot(of, of);
    values.iter_mut().zip(of).for_each(|(value, of)| *value -= slope * of);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Windows of ten seconds in their order, with the change or without it, by their stalls.
    pub(in crate::compare) fn units(stalls: &[(bool, u64)]) -> Vec<Unit> {
        let unit = |(at, &(changed, stalls)): (usize, &(bool, u64))| Unit {
            changed,
            at_s: 12.0 * at as f64,
            seconds: 10.0,
            counts: [("x".to_owned(), UnitCount { events: 1000, stalls })].into(),
            ..Unit::default()
        };
        stalls.iter().enumerate().map(unit).collect()
    }

    #[test]
    fn the_regression_is_that_of_least_squares() {
        // numpy.linalg.lstsq on the same columns: -0.82473 (0.19759), p 0.0087064 with 5 df.
        let alternate = [9, 4, 8, 3, 11, 5, 7, 2].into_iter().enumerate();
        let alternate: Vec<(bool, u64)> = alternate.map(|(at, k)| (at % 2 == 1, k)).collect();
        let units = units(&alternate);
        let logs = units.iter().map(|u| ((u.counts["x"].stalls as f64 + 0.5) / 1000.0).ln());
        let (found, _) = regression(&units, &logs.collect::<Vec<f64>>());
        assert!((found.ratio.unwrap().ln() + 0.824_73).abs() < 1e-4, "{found:?}");
        assert!((found.p.unwrap() - 0.008_706).abs() < 1e-5, "{found:?}");
    }

    #[test]
    fn the_sums_must_agree() {
        // Windows that do not vary at all: Poisson's variance counts.
        let same = units(&[(false, 2), (true, 1), (false, 2), (true, 1), (false, 2), (true, 1)]);
        let found = test(&same, "x", UnitKind::Window);
        assert!(found.p.unwrap() > 0.3, "{found:?}");
    }

    #[test]
    fn none_is_not_half_a_stall() {
        let none = units(&[(false, 9), (true, 0), (false, 7), (true, 0), (false, 8), (true, 0)]);
        let found = test(&none, "x", UnitKind::Window);
        assert_eq!((found.estimate.ratio, found.estimate.low), (Some(0.0), 0.0));
        assert!(found.estimate.high < 0.3 && found.p.unwrap() < 0.01, "{found:?}");
    }

    #[test]
    fn hosts_are_compared_with_themselves() {
        let mut all = units(&[(false, 100), (false, 1000), (false, 10), (false, 300), (true, 50)]);
        all.extend(units(&[(true, 490), (true, 5), (true, 160)]));
        for (unit, host) in all.iter_mut().zip(["a", "b", "c", "d", "a", "b", "c", "d"]) {
            unit.host = Some(host.to_owned());
        }
        let found = test(&all, "x", UnitKind::Host);
        assert_eq!(found.estimate.approach, Approach::Paired);
        assert!(found.p.unwrap() < 0.001, "{found:?}");
        let unpaired = test(&all, "x", UnitKind::Recording);
        assert!(unpaired.p.unwrap() > 0.1, "{unpaired:?}");
    }
}
