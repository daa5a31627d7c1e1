//! The verdict: corrects for the number of tests, and says what the recordings do not allow.

use super::{
    power,
    units::{self, Unit},
    within::LEAST_PARTS,
};
use crate::model::{
    comparison::{ComparedRow, Comparison, Decision, Exceedance, UnitKind, Verdict},
    note::{CompareSide, Note},
};

/// Corrects all tests and sets the verdict.
pub(super) fn conclude(comparison: &mut Comparison, units: &[Unit]) {
    let few = few_intervals(comparison);
    let is_enough = match comparison.unit {
        UnitKind::Interval => !comparison.units.contains(&0),
        _ => units::are_enough(units),
    };
    if comparison.unit != UnitKind::Interval && !is_enough {
        let [before, after] = comparison.units.map(|units| units as u64);
        comparison.notes.push(Note::TooFewUnits { before, after });
    }
    let level = comparison.level;
    comparison.tests = correct(&mut comparison.stages, level);
    if comparison.stages.is_empty() {
        comparison.tests = correct(&mut comparison.series, level);
    }
    let comparable = !comparison.notes.iter().any(|note| matches!(note, Note::UnitsDiffer { .. }));
    if !is_enough || !comparable {
        let rows = comparison.stages.iter_mut().chain(&mut comparison.series);
        rows.flat_map(|row| &mut row.exceedance).for_each(|test| test.significant = false);
        return;
    }
    if comparison.stages.is_empty() && comparison.series.is_empty() {
        comparison.notes.push(Note::NoCommonSeries);
        return;
    }
    comparison.weak = comparison.unit == UnitKind::Interval
        && (few
            || deciding_rows(comparison).iter().any(|row| row.loads_differ() && row.has_stalls()));
    let found = tests(comparison).filter(|(_, test)| test.significant);
    let is_higher: Vec<bool> = found.map(|(_, test)| test.is_higher()).collect();
    comparison.verdict = match &is_higher[..] {
        [] => Verdict::NoDifferenceShown,
        found if found.contains(&true) => Verdict::Worse,
        _ => Verdict::Improved,
    };
    comparison.decision = decision(comparison);
    comparison.units_for_halving = comparison.decision.as_ref().and_then(|decision| {
        (comparison.unit != UnitKind::Interval)
            .then(|| units::test(units, &decision.name, comparison.unit).variance)
            .filter(|variance| *variance > 0.0)
            .and_then(power::units)
    });
}

/// Whether a test of the units, corrected for all stages, is below `level`.
pub fn clear(units: &[Unit], kind: UnitKind, level: f64) -> bool {
    if !units::are_enough(units) {
        return false;
    }
    let names = units::names(units);
    let tests = names.len() as f64;
    let p = names.into_iter().filter_map(|name| units::test(units, name, kind).p);
    p.fold(1.0, f64::min) * tests < level
}

/// Notes sides with too few intervals; whether there are any.
fn few_intervals(comparison: &mut Comparison) -> bool {
    let mut few = false;
    for (side, parts) in [
        (CompareSide::Before, comparison.before.parts),
        (CompareSide::After, comparison.after.parts),
    ] {
        if parts < LEAST_PARTS && comparison.unit == UnitKind::Interval {
            few = true;
            comparison.notes.push(Note::TooFewIntervals {
                side,
                intervals: parts as u64,
                needed: LEAST_PARTS as u64,
            });
        }
    }
    few
}

fn deciding_rows(comparison: &Comparison) -> &[ComparedRow] {
    match comparison.stages.is_empty() {
        true => &comparison.series,
        false => &comparison.stages,
    }
}

fn tests(comparison: &Comparison) -> impl Iterator<Item = (&ComparedRow, &Exceedance)> {
    let rows = deciding_rows(comparison).iter();
    rows.flat_map(|row| row.exceedance.iter().map(move |test| (row, test)))
        .filter(|(_, test)| test.decides)
}

/// The figures of the test that the verdict rests on: the clearest one in its direction.
fn decision(comparison: &Comparison) -> Option<Decision> {
    let wanted = |test: &Exceedance| match comparison.verdict {
        Verdict::Improved => test.significant && !test.is_higher(),
        Verdict::Worse => test.significant && test.is_higher(),
        _ => true,
    };
    let p = |test: &Exceedance| test.p_corrected.unwrap_or(1.0);
    let raw = |test: &Exceedance| test.p.unwrap_or(1.0);
    let (row, test) = tests(comparison)
        .filter(|(_, test)| wanted(test))
        .min_by(|(_, a), (_, b)| p(a).total_cmp(&p(b)).then(raw(a).total_cmp(&raw(b))))?;
    Some(Decision {
        name: row.name.clone(),
        estimate: test.estimate,
        low: test.low,
        high: test.high,
        p: p(test),
        method: test.method,
    })
}

/// Holm's correction of the tests at the threshold. Returns their number.
fn correct(rows: &mut [ComparedRow], level: f64) -> usize {
    // Without a stall on either side there is nothing to test.
    let mut tests: Vec<&mut Exceedance> = rows
        .iter_mut()
        .filter_map(|row| row.exceedance.first_mut())
        .filter(|test| test.p.is_some() && test.counted() != [0, 0])
        .collect();
    tests.sort_by(|a, b| a.p.unwrap_or(1.0).total_cmp(&b.p.unwrap_or(1.0)));
    let n = tests.len();
    let mut least = 0_f64;
    for (at, test) in tests.iter_mut().enumerate() {
        least = least.max((test.p.unwrap_or(1.0) * (n - at) as f64).min(1.0));
        test.p_corrected = Some(least);
        test.decides = true;
        test.significant = least < level;
    }
    n
}
