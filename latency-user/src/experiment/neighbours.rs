//! Windows with the change, compared with the nearest ones without it before and after them: what
//! a reader of the windows sees without statistics.

use crate::{
    compare::units::Unit,
    model::{comparison::Decision, experiment::Neighbours},
};

/// Compares windows in the order of time, by the stage that decided.
pub(super) fn compare(units: &[Unit], decision: Option<&Decision>) -> Neighbours {
    let Some(decision) = decision else { return Neighbours::default() };
    let rate = |unit: &Unit| {
        let stalls = unit.counts.get(&decision.name).map_or(0, |count| count.stalls);
        stalls as f64 / unit.seconds.max(1e-3)
    };
    let mut found = Neighbours::default();
    for (at, unit) in units.iter().enumerate().filter(|(_, unit)| unit.changed) {
        let (earlier, later) = (&units[..at], &units[at + 1..]);
        let before = earlier.iter().rev().find(|unit| !unit.changed);
        let after = later.iter().find(|unit| !unit.changed);
        let mut beside = before.into_iter().chain(after).map(rate).peekable();
        if beside.peek().is_none() {
            continue;
        }
        let beside: Vec<f64> = beside.collect();
        found.of += 1;
        found.fewer += usize::from(beside.iter().all(|other| rate(unit) < *other));
        found.more += usize::from(beside.iter().all(|other| rate(unit) > *other));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compare::units::UnitCount, model::comparison::Approach};

    #[test]
    fn the_nearest_windows_on_either_side_count() {
        let units: Vec<Unit> =
            [(true, 1), (false, 5), (false, 3), (true, 4), (true, 9), (false, 8)]
                .into_iter()
                .map(|(changed, stalls)| Unit {
                    changed,
                    seconds: 10.0,
                    counts: [("x".to_owned(), UnitCount { events: 100, stalls })].into(),
                    ..Unit::default()
                })
                .collect();
        let decision = Decision {
            name: "x".into(),
            estimate: None,
            low: None,
            high: None,
            p: 1.0,
            method: Approach::None,
        };
        let found = compare(&units, Some(&decision));
        assert_eq!(found, Neighbours { fewer: 1, more: 1, of: 3 });
    }
}
