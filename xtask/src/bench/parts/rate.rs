//! The packet rate with a tracer attached, divided by that of the slices without one next to it.

use std::cell::RefCell;

use anyhow::Result;

use super::check_counts;
use crate::bench::{
    Built, Plan,
    contenders::{Contender, ours, softirqs},
    figures, goals,
    load::Load,
    results::Results,
    rounds,
};

const PART: &str = "Packet rate kept, UDP over loopback, statistics off";

pub(crate) fn run(
    built: &Built,
    plan: &Plan,
    contenders: &[Contender],
    results: &mut Results,
) -> Result<()> {
    let load = RefCell::new(Load::start(built, &["udp"])?);
    let without = || anyhow::Ok(load.borrow_mut().slice(plan.slice, None)?.rate());
    let mut checks = Results::default();
    let mut bare = Vec::new();
    let mut before = without()?;
    let rounds = rounds::run(PART, contenders, plan.rounds, results, |contender| {
        let tracer = contender.start()?;
        let slice = load.borrow_mut().slice(plan.slice, None)?;
        let said = tracer.stop()?;
        check_counts(contender, &said, slice.sent, &mut checks);
        let after = without()?;
        let kept = slice.rate() / f64::midpoint(before, after);
        bare.push(after);
        before = after;
        Ok(kept)
    });
    results.checks.append(&mut checks.checks);

    results.row(PART, "no tracer", "packets/s", figures::of(&bare));
    results.check("packets were sent", bare.iter().all(|rate| *rate > 0.0), || "none".to_owned());
    for (place, contender) in contenders.iter().enumerate() {
        let kept: Vec<f64> = rounds.iter().filter_map(|round| round[place]).collect();
        if !kept.is_empty() {
            results.row(PART, contender.name, "of no tracer", figures::of(&kept));
        }
    }
    let place = |name: &str| contenders.iter().position(|one| one.name == name);
    if let (Some(ours), Some(theirs)) = (place(ours::EVERYTHING), place(softirqs::NAME)) {
        let pairs: Vec<(f64, f64)> =
            rounds.iter().filter_map(|round| Some((round[ours]?, round[theirs]?))).collect();
        results.goal(&goals::LOSS_TO_SOFTIRQS, loss_ratio(&pairs));
    }
    Ok(())
}

/// What ours loses of what the other loses, of pairs of kept parts.
///
/// Of medians and not the median of ratios: in a single round the other may lose nothing.
fn loss_ratio(pairs: &[(f64, f64)]) -> Option<figures::Figure> {
    figures::bootstrap(pairs.len(), |chosen| {
        let lost = |of: fn(&(f64, f64)) -> f64| {
            1.0 - figures::median(&chosen.iter().map(|at| of(&pairs[*at])).collect::<Vec<_>>())
        };
        // What cannot be told from nothing is no measure of anything: no figure then.
        match lost(|pair| pair.1) {
            theirs if theirs > 0.0 => lost(|pair| pair.0) / theirs,
            _ => f64::INFINITY,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losing_half_as_much() {
        let figure = loss_ratio(&[(0.95, 0.9), (0.94, 0.88), (0.96, 0.92)]).unwrap();
        assert!((figure.median - 0.5).abs() < 1e-9, "{figure:?}");
        assert!(loss_ratio(&[]).is_none());
    }
}
