//! Packets per second of the sender's CPU time with a tracer attached, divided by those of the
//! adjacent slices without one.

use std::cell::RefCell;

use anyhow::Result;

use super::{Traffic, check_counts};
use crate::bench::{
    built::Built,
    figures,
    goals::{self, Goal},
    load::Load,
    plan::Plan,
    results::Results,
    rounds,
    tools::{bpftrace, ours, softirqs, tool::Tool},
};

pub(crate) fn run(
    built: &Built,
    plan: &Plan,
    traffic: &Traffic,
    tools: &[Tool],
    results: &mut Results,
) -> Result<()> {
    let benchmark = traffic.rate;
    let load = RefCell::new(Load::start(built, traffic.load)?);
    let without = || anyhow::Ok(load.borrow_mut().slice(plan.slice, None)?.rate());
    let mut checks = Results::default();
    let mut bare = Vec::new();
    let mut before = without()?;
    let rounds = rounds::run(benchmark, tools, plan.rounds, results, |tool| {
        let tracer = tool.start()?;
        let slice = load.borrow_mut().slice(plan.slice, None)?;
        let output = tracer.stop()?;
        check_counts(tool, &output, slice.sent, &mut checks);
        let after = without()?;
        let kept = slice.rate() / f64::midpoint(before, after);
        bare.push(after);
        before = after;
        Ok(kept)
    });
    results.checks.append(&mut checks.checks);

    results.row(benchmark, "no tracer", "packets a CPU second", figures::of(&bare));
    results.check("packets were sent", bare.iter().all(|rate| *rate > 0.0), || "none".to_owned());
    for (place, tool) in tools.iter().enumerate() {
        let kept: Vec<f64> = rounds.iter().filter_map(|round| round[place]).collect();
        if !kept.is_empty() {
            results.row(benchmark, tool.name, "of no tracer", figures::of(&kept));
        }
    }
    if !traffic.is_judged {
        return Ok(());
    }
    let place = |name: &str| tools.iter().position(|tool| tool.name == name);
    let ratios: [(&Goal, &str, &str); 3] = [
        (&goals::STAGE_LOSS, ours::STAGE, softirqs::NAME),
        (&goals::CYCLE_LOSS, ours::CYCLE, softirqs::NAME),
        (&goals::BPFTRACE_LOSS, bpftrace::NAME, ours::CYCLE),
    ];
    for (goal, one, other) in ratios {
        let (Some(one), Some(other)) = (place(one), place(other)) else { continue };
        let pairs: Vec<(f64, f64)> =
            rounds.iter().filter_map(|round| Some((round[one]?, round[other]?))).collect();
        results.goal(goal, loss_ratio(&pairs));
    }
    Ok(())
}

/// Packet rate lost with one tool, divided by that lost with the other. `pairs`: the kept shares
/// (one, other) of each round.
///
/// The ratio of medians, not the median of ratios: in a single round the other tool may lose
/// nothing.
fn loss_ratio(pairs: &[(f64, f64)]) -> Option<figures::Figure> {
    figures::bootstrap(pairs.len(), |chosen| {
        let lost = |of: fn(&(f64, f64)) -> f64| {
            1.0 - figures::median(&chosen.iter().map(|at| of(&pairs[*at])).collect::<Vec<_>>())
        };
        // The other tool lost nothing measurable, so there is nothing to divide by.
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
