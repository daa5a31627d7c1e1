//! Compares recordings: did stalls become rarer, and is that more than chance?
//!
//! **What decides.** Of each stage, the rate of stalls: events at or above the threshold, per event.
//! More events alone make stalls rarer per event, so a difference must show in stalls per second,
//! too, in the same direction: the larger p-value counts. Holm's correction keeps the probability
//! of *any* false difference at 5 %. Stalls in which the hypervisor had taken the CPU do not count.
//! In logs of other programs, which have no stages, the series decide.
//!
//! **What describes.** Single series, four and sixteen times the threshold, quantiles and maxima:
//! they are no further questions, and are not tested.
//!
//! **What chance is.** With several recordings a side, a recording, a window or a host is one unit
//! ([`units`]). Of two single recordings, the intervals are the units ([`within`]): such a
//! comparison shows that they differ, not what made them differ. [`sequential`] says when windows
//! are enough, [`power`] how many would be.
//!
//! **The maximum** is one value per side, so it has no interval. Instead, there is an upper bound on
//! the share of events above it: `ln(20) / N` with 95 % confidence.
//!
//! **Load.** If the events per second of a stage differ by more than 20 %, the verdict on two
//! recordings is weak. **Few intervals.** With fewer than five parts on a side, as merged recordings
//! may have, it cannot be seen how stalls cluster: the exact bounds assume that they do not, and the
//! verdict is weak.

use std::collections::BTreeSet;

use latency_common::stage::Stage;

mod bootstrap;
mod counts;
mod differences;
mod exact;
pub mod outlook;
pub mod power;
pub mod sequential;
pub mod units;
mod verdict;
mod within;

#[cfg(test)]
mod tests;

use self::{bootstrap::Resamples, counts::Counts, units::Unit};
pub use self::{counts::Estimate, verdict::clear};
use crate::{
    model::{
        comparison::{
            Approach, BeforeAfter, ComparedRow, ComparedSide, Comparison, Exceedance, Quantile,
            UnitKind, Verdict,
        },
        distribution::Distribution,
        run::DEFAULT_THRESHOLD_NS,
        series::SeriesKey,
    },
    recording::loaded::LoadedRecording,
};

/// Thresholds that are compared, as multiples of the recordings' own.
const MULTIPLES: [u64; 3] = [1, 4, 16];

/// Quantiles that are compared.
const QUANTILES: [f64; 3] = [0.99, 0.999, 0.9999];

/// Compares two recordings.
pub fn compare(before: &LoadedRecording, after: &LoadedRecording) -> Comparison {
    compare_units([&[before], &[after]], UnitKind::Interval, sequential::LEVEL)
}

/// Compares the recordings of two sides with units of `kind`, at a significance level.
pub fn compare_units(sides: [&[&LoadedRecording]; 2], kind: UnitKind, level: f64) -> Comparison {
    let threshold_ns = threshold_of(sides);
    let units = match kind {
        UnitKind::Interval => Vec::new(),
        UnitKind::Host => units::by_host(units_of(sides, threshold_ns)),
        UnitKind::Window | UnitKind::Recording => units_of(sides, threshold_ns),
    };
    compare_with(sides, kind, level, &units)
}

/// As [`compare_units`], with the units that belong to the recordings.
pub fn compare_with(
    sides: [&[&LoadedRecording]; 2],
    kind: UnitKind,
    level: f64,
    units: &[Unit],
) -> Comparison {
    let threshold_ns = threshold_of(sides);
    let comparer = Comparer { sides, kind, threshold_ns, units };
    let stages: Vec<ComparedRow> =
        Stage::ALL.into_iter().filter_map(|stage| comparer.stage(stage)).collect();
    let keys: BTreeSet<&SeriesKey> = sides[0].iter().flat_map(|r| r.parts.keys()).collect();
    let series = keys.into_iter().filter_map(|key| comparer.series(key)).collect();
    let mut comparison = Comparison {
        verdict: Verdict::NotComparable,
        weak: false,
        decision: None,
        unit: kind,
        units: match kind {
            UnitKind::Interval => sides.map(parts),
            _ => [false, true].map(|changed| units.iter().filter(|u| u.changed == changed).count()),
        },
        units_for_halving: None,
        notes: differences::notes(sides),
        before: compared_side(sides[0]),
        after: compared_side(sides[1]),
        tests: 0,
        level,
        stages,
        series,
    };
    verdict::conclude(&mut comparison, units);
    comparison
}

/// The variance of values.
pub fn variance(values: &[f64]) -> f64 {
    within::mean_and_variance(values).1
}

/// What a recording counted, as a unit.
pub fn unit_of(recording: &LoadedRecording, changed: bool) -> Unit {
    units::of_recording(recording, changed, threshold_ns(recording))
}

fn units_of(sides: [&[&LoadedRecording]; 2], threshold_ns: u64) -> Vec<Unit> {
    let of = |changed: bool| {
        let side = sides[usize::from(changed)];
        side.iter().map(move |recording| units::of_recording(recording, changed, threshold_ns))
    };
    of(false).chain(of(true)).collect()
}

fn threshold_of(sides: [&[&LoadedRecording]; 2]) -> u64 {
    let recordings = sides.iter().flat_map(|side| side.iter());
    let threshold_ns = recordings.map(|recording| threshold_ns(recording)).max();
    threshold_ns.unwrap_or(DEFAULT_THRESHOLD_NS)
}

/// Whether a recording timed a stage.
fn is_timed(recording: &LoadedRecording, stage: Stage) -> bool {
    let probes = recording.totals.run.as_ref().map_or(&[][..], |run| &run.probes);
    probes.iter().any(|probe| probe.stage == stage && probe.method.is_some())
}

fn parts(side: &[&LoadedRecording]) -> usize {
    side.iter().map(|recording| recording.parts.parts().len()).sum()
}

fn compared_side(side: &[&LoadedRecording]) -> ComparedSide {
    let distinct = |of: &dyn Fn(&LoadedRecording) -> Option<String>| -> Vec<String> {
        let all: BTreeSet<String> = side.iter().filter_map(|recording| of(recording)).collect();
        all.into_iter().collect()
    };
    let all = side.iter().flat_map(|recording| recording.parts.parts());
    ComparedSide {
        recordings: side.iter().map(|r| r.totals.path.display().to_string()).collect(),
        hosts: distinct(&|recording| Some(recording.totals.run.as_ref()?.host.clone())),
        kernels: distinct(&|recording| Some(recording.totals.run.as_ref()?.kernel.clone())),
        duration_s: all.map(|part| part.seconds).sum(),
        intervals: side.iter().map(|recording| recording.totals.totals.intervals).sum(),
        parts: parts(side),
    }
}

fn threshold_ns(recording: &LoadedRecording) -> u64 {
    recording.totals.run.as_ref().map_or(DEFAULT_THRESHOLD_NS, |run| run.threshold_ns)
}

/// Events of a distribution at or above a threshold. Those at the threshold of a run were counted
/// before durations were rounded to buckets.
fn at_or_above(recording: &LoadedRecording, distribution: &Distribution, ns: u64) -> u64 {
    match &recording.totals.run {
        Some(run) if run.threshold_ns == ns => distribution.over_threshold,
        _ => distribution.count_from(ns),
    }
}

/// Compares rows.
struct Comparer<'a> {
    sides: [&'a [&'a LoadedRecording]; 2],
    kind: UnitKind,
    threshold_ns: u64,
    units: &'a [Unit],
}

/// One part of a side, as a row sees it.
struct RowPart<'a> {
    recording: &'a LoadedRecording,
    distribution: Distribution,
    seconds: f64,
    stolen: u64,
}

impl<'a> Comparer<'a> {
    /// A stage without events is zero where it was timed, and unknown elsewhere.
    fn stage(&self, stage: Stage) -> Option<ComparedRow> {
        let timed = self.sides.iter().all(|side| side.iter().any(|r| is_timed(r, stage)));
        let name = format!("stage={}", stage.name());
        let sides = self.sides.map(|side| {
            rows(side, |recording| recording.parts.of_stage(stage), |part| part.stolen(stage))
        });
        self.row(&name, &sides, &MULTIPLES, timed)
    }

    fn series(&self, key: &SeriesKey) -> Option<ComparedRow> {
        let sides =
            self.sides.map(|side| rows(side, |recording| recording.parts.of_series(key), |_| 0));
        self.row(&key.tag(), &sides, &MULTIPLES[..1], false)
    }

    /// A row; `None` unless both sides have events of it, or one has and both `timed` it.
    fn row(
        &self,
        name: &str,
        sides: &[Vec<RowPart<'a>>; 2],
        multiples: &[u64],
        timed: bool,
    ) -> Option<ComparedRow> {
        let events = sides
            .each_ref()
            .map(|side| side.iter().map(|part| part.distribution.count()).sum::<u64>());
        if events == [0, 0] || (events.contains(&0) && !timed) {
            return None;
        }
        let seconds = sides.each_ref().map(|side| side.iter().map(|p| p.seconds).sum::<f64>());
        let per_second = [0, 1].map(|side| events[side] as f64 / seconds[side].max(1e-9));
        let max_ns = sides
            .each_ref()
            .map(|side| side.iter().map(|part| part.distribution.max_ns).max().unwrap_or(0));
        let exceedance = multiples.iter().map(|multiple| {
            self.exceedance(name, sides, self.threshold_ns.saturating_mul(*multiple))
        });
        Some(ComparedRow {
            name: name.to_owned(),
            events,
            per_second: BeforeAfter::new(per_second[0], per_second[1]),
            exceedance: exceedance.collect(),
            quantiles: quantiles(sides, max_ns, multiples.len() > 1),
            max_ns,
            longer_ppm: events.map(|events| 20_f64.ln() / events as f64 * 1e6),
        })
    }

    fn exceedance(
        &self,
        name: &str,
        sides: &[Vec<RowPart<'a>>; 2],
        threshold_ns: u64,
    ) -> Exceedance {
        let is_threshold = threshold_ns == self.threshold_ns;
        let stalls_of = |part: &RowPart<'_>| -> (u64, u64) {
            let stalls = at_or_above(part.recording, &part.distribution, threshold_ns);
            (stalls, if is_threshold { part.stolen.min(stalls) } else { 0 })
        };
        let sums = sides
            .each_ref()
            .map(|side| side.iter().map(stalls_of).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)));
        let events: [u64; 2] = sides
            .each_ref()
            .map(|side| side.iter().map(|part| part.distribution.count()).sum::<u64>());
        let counts = |exposure: &dyn Fn(&RowPart<'_>) -> f64| {
            sides.each_ref().map(|side| Counts {
                stalls: side
                    .iter()
                    .map(|part| {
                        let (stalls, stolen) = stalls_of(part);
                        (stalls - stolen) as f64
                    })
                    .collect(),
                exposure: side.iter().map(exposure).collect(),
            })
        };
        let in_time = counts(&|part| part.seconds);
        // Without any event on a side, only stalls per second can be compared.
        let per_event = match events.contains(&0) {
            true => in_time.clone(),
            false => counts(&|part| part.distribution.count() as f64),
        };
        let (estimate, p) = match self.kind {
            _ if !is_threshold => (Estimate::NONE, None),
            UnitKind::Interval => {
                let found = within::ratio(&per_event);
                (found, both(&found, &within::ratio(&in_time)))
            }
            _ if !units::are_enough(self.units) => (Estimate::NONE, None),
            kind => {
                let found = units::test(self.units, name, kind);
                (found.estimate, found.p)
            }
        };
        let counted = sums.map(|(stalls, stolen)| (stalls - stolen) as f64);
        let ppm = [0, 1].map(|side| counted[side] / events[side].max(1) as f64 * 1e6);
        let seconds = in_time.each_ref().map(Counts::all_exposure);
        let rate = [0, 1].map(|side| counted[side] / seconds[side].max(1e-9));
        let has_interval = estimate.approach != Approach::None;
        Exceedance {
            threshold_ns,
            stalls: sums.map(|(stalls, _)| stalls),
            stolen: sums.map(|(_, stolen)| stolen),
            ppm: BeforeAfter::new(ppm[0], ppm[1]),
            per_second: BeforeAfter::new(rate[0], rate[1]),
            estimate: estimate.ratio,
            low: has_interval.then_some(estimate.low),
            high: (has_interval && estimate.high.is_finite()).then_some(estimate.high),
            p,
            p_corrected: None,
            method: estimate.approach,
            decides: false,
            significant: false,
        }
    }
}

fn rows<'a>(
    side: &[&'a LoadedRecording],
    of: impl Fn(&LoadedRecording) -> Vec<Distribution>,
    stolen: impl Fn(&crate::recording::parts::Part) -> u64,
) -> Vec<RowPart<'a>> {
    let mut rows = Vec::new();
    for recording in side {
        let parts = recording.parts.parts().iter().zip(of(recording));
        rows.extend(parts.map(|(part, distribution)| RowPart {
            recording,
            distribution,
            seconds: part.seconds,
            stolen: stolen(part),
        }));
    }
    rows
}

/// Quantiles of both sides, with intervals of their ratios if `resampled`.
fn quantiles(sides: &[Vec<RowPart<'_>>; 2], max_ns: [u64; 2], resampled: bool) -> Vec<Quantile> {
    let enough = resampled && sides.iter().all(|side| side.len() >= within::LEAST_PARTS);
    let [a, b] = [0, 1].map(|side| {
        let parts: Vec<&Distribution> = sides[side].iter().map(|part| &part.distribution).collect();
        match enough {
            true => Resamples::new(parts.len(), side).quantiles(&parts, &QUANTILES),
            false => Resamples::none().quantiles(&parts, &QUANTILES),
        }
    });
    let quantiles = QUANTILES.iter().enumerate().map(|(at, quantile)| {
        let value = |side: &bootstrap::Quantiles, max: u64| side.of_recording[at].min(max as f64);
        let mut ns = BeforeAfter::new(value(&a, max_ns[0]), value(&b, max_ns[1]));
        if enough {
            let pairs = a.resampled[at].iter().zip(&b.resampled[at]);
            let ratios = pairs.filter(|(before, _)| **before > 0.0);
            let mut ratios: Vec<f64> = ratios.map(|(before, after)| after / before).collect();
            ratios.sort_by(f64::total_cmp);
            let at = |part: f64| {
                ratios.get((part * ratios.len().saturating_sub(1) as f64).round() as usize)
            };
            (ns.ratio_low, ns.ratio_high) = (at(0.025).copied(), at(0.975).copied());
        }
        Quantile { quantile: *quantile, ns }
    });
    quantiles.collect()
}

/// The p-value of a change that must show per event and per second, in the same direction: more
/// events alone make stalls rarer per event. The larger one counts.
fn both(per_event: &Estimate, per_second: &Estimate) -> Option<f64> {
    let is_higher = |estimate: &Estimate| estimate.ratio.is_none_or(|ratio| ratio > 1.0);
    let (a, b) = (per_event.p?, per_second.p?);
    Some(if is_higher(per_event) == is_higher(per_second) { a.max(b) } else { 1.0 })
}
