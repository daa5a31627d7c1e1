//! The verdict: corrects for the number of tests and checks whether the loads differ.

use latency_common::stage::Stage;

use super::{MIN_PARTS, exact};
use crate::model::{
    comparison::{ComparedRow, Comparison, Exceedance, Verdict},
    note::{CompareSide, Note},
};

/// Loads that differ by more than this factor, up or down, make a verdict weak.
const LOAD: f64 = 1.2;

/// Corrects all tests and sets the verdict. `seconds` is the length of each side; `vanished` are
/// stages that stalled on one side and were not recorded on the other.
pub(super) fn conclude(comparison: &mut Comparison, seconds: &[f64; 2], vanished: &[Stage]) {
    comparison.tests = correct(comparison);
    if !vanished.is_empty() {
        let stages = vanished.iter().map(|stage| stage.name().to_owned()).collect();
        comparison.notes.push(Note::StagesVanished { stages });
        return;
    }
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
    if parts.iter().any(|parts| *parts < MIN_PARTS) {
        return;
    }
    if comparison.stages.is_empty() && comparison.series.is_empty() {
        comparison.notes.push(Note::NoCommonSeries);
        return;
    }
    comparison.weak = comparison.stages.iter().any(|row| loads_differ(row) && row.has_stalls());
    let weak = comparison.weak;
    let found: Vec<bool> = rows(comparison)
        .flat_map(|row| row.exceedance.iter().map(move |rate| (row, rate)))
        .filter(|(_, rate)| rate.is_significant())
        .filter(|(row, rate)| !weak || shows_per_second(row, rate, seconds))
        .map(|(_, rate)| rate.is_higher())
        .collect();
    comparison.verdict = match &found[..] {
        [] => Verdict::NoDifferenceShown,
        found if found.contains(&true) => Verdict::Worse,
        _ => Verdict::Improved,
    };
}

impl ComparedRow {
    /// Whether a stall was seen on either side.
    fn has_stalls(&self) -> bool {
        self.exceedance.iter().any(|rate| rate.stalls != [0, 0])
    }
}

/// Whether the loads differ by more than [`LOAD`].
pub(super) fn loads_differ(row: &ComparedRow) -> bool {
    row.per_second.ratio.is_none_or(|ratio| !(1.0 / LOAD..=LOAD).contains(&ratio))
}

/// Whether stalls per second changed in the same direction as stalls per event.
fn shows_per_second(row: &ComparedRow, rate: &Exceedance, seconds: &[f64; 2]) -> bool {
    if !loads_differ(row) {
        return true;
    }
    // The same stalls as in the rate per event, related to time.
    let found = exact::bounds(rate.stalls.map(|n| n as f64), *seconds);
    let is_higher = rate.stalls[1] as f64 / seconds[1] > rate.stalls[0] as f64 / seconds[0];
    found.p < 0.05 && is_higher == rate.is_higher()
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
