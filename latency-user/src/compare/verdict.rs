//! The verdict: corrects for the number of tests and checks whether the loads differ.

use super::MIN_PARTS;
use crate::model::{
    comparison::{ComparedRow, Comparison, Exceedance, Verdict},
    note::{CompareSide, Note},
};

/// Corrects all tests and sets the verdict.
pub(super) fn conclude(comparison: &mut Comparison) {
    comparison.tests = correct(comparison);
    let parts = [comparison.before.parts, comparison.after.parts];
    for (side, parts) in [(CompareSide::Before, parts[0]), (CompareSide::After, parts[1])] {
        if parts < MIN_PARTS {
            comparison.notes.push(Note::TooFewIntervals {
                side,
                intervals: parts as u64,
                needed: MIN_PARTS as u64,
            });
        }
    }
    if parts.contains(&0)
        || comparison.notes.iter().any(|note| matches!(note, Note::UnitsDiffer { .. }))
    {
        return;
    }
    if comparison.stages.is_empty() && comparison.series.is_empty() {
        comparison.notes.push(Note::NoCommonSeries);
        return;
    }
    let few = parts.iter().any(|parts| *parts < MIN_PARTS);
    comparison.weak = few || rows(comparison).any(|row| row.loads_differ() && row.has_stalls());
    let found: Vec<bool> = rows(comparison)
        .flat_map(|row| &row.exceedance)
        .filter(|rate| rate.is_significant())
        .map(Exceedance::is_higher)
        .collect();
    comparison.verdict = match &found[..] {
        [] => Verdict::NoDifferenceShown,
        found if found.contains(&true) => Verdict::Worse,
        _ => Verdict::Improved,
    };
}

fn rows(comparison: &Comparison) -> impl Iterator<Item = &ComparedRow> {
    comparison.stages.iter().chain(&comparison.series)
}

/// Holm's correction. Returns the number of tests.
fn correct(comparison: &mut Comparison) -> usize {
    let rows = comparison.stages.iter_mut().chain(&mut comparison.series);
    // Without a stall on either side there is nothing to test.
    let mut tests: Vec<&mut Exceedance> = rows
        .flat_map(|row| &mut row.exceedance)
        .filter(|rate| rate.p.is_some() && rate.stalls != [0, 0])
        .collect();
    tests.sort_by(|a, b| a.p.unwrap_or(1.0).total_cmp(&b.p.unwrap_or(1.0)));
    let n = tests.len();
    let mut least = 0_f64;
    for (at, test) in tests.iter_mut().enumerate() {
        least = least.max((test.p.unwrap_or(1.0) * (n - at) as f64).min(1.0));
        test.p_corrected = Some(least);
    }
    n
}
