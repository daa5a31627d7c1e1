//! Latency of requests and responses over a veth pair, with and without a tracer.

use std::cell::RefCell;

use anyhow::Result;

use super::check_counts;
use crate::bench::{
    Built, Plan,
    contenders::{Contender, ours},
    figures::{self, Figure},
    goals::{self, Goal},
    latencies::{Latencies, quantile},
    load::Load,
    results::Results,
    rounds,
};

const PARTS: [(&str, &str); 2] = [
    ("tcp", "Latency added, TCP ping-pong over veth"),
    ("udp", "Latency added, UDP ping-pong over veth"),
];

const QUANTILES: [(f64, &str); 5] = [
    (0.5, "p50 added, %"),
    (0.9, "p90 added, %"),
    (0.99, "p99 added, %"),
    (0.999, "p99.9 added, %"),
    (0.9999, "p99.99 added, %"),
];

/// A slice with a tracer and those without on either side of it.
struct Pair {
    with: Latencies,
    without: [Latencies; 2],
}

pub(crate) fn run(
    built: &Built,
    plan: &Plan,
    contenders: &[Contender],
    results: &mut Results,
) -> Result<()> {
    for (protocol, part) in PARTS {
        let load = RefCell::new(Load::start(built, &["ping", protocol])?);
        let slice = || load.borrow_mut().slice(plan.slice, None);
        let mut checks = Results::default();
        let mut before = slice()?.latencies;
        let rounds = rounds::run(part, contenders, plan.rounds, results, |contender| {
            let tracer = contender.start()?;
            let with = slice()?;
            let said = tracer.stop()?;
            check_counts(contender, &said, with.received, &mut checks);
            let after = slice()?.latencies;
            let without = [std::mem::replace(&mut before, after.clone()), after];
            Ok(Pair { with: with.latencies, without })
        });
        results.checks.append(&mut checks.checks);
        for (place, contender) in contenders.iter().enumerate() {
            let pairs: Vec<&Pair> =
                rounds.iter().filter_map(|round| round[place].as_ref()).collect();
            if pairs.is_empty() {
                continue;
            }
            for (part_of, what) in QUANTILES {
                let figure = added(&pairs, part_of);
                if contender.name == ours::EVERYTHING
                    && let Some(goal) = goal(protocol, part_of)
                {
                    results.goal(goal, figure);
                }
                results.row(part, contender.name, what, figure);
            }
        }
        let pairs: Vec<&Pair> = rounds.iter().flatten().flatten().collect();
        for (part_of, what) in
            [(0.5, "p50, us"), (0.99, "p99, us"), (0.999, "p99.9, us"), (0.9999, "p99.99, us")]
        {
            let alone = figures::bootstrap(pairs.len(), |chosen| {
                quantile(&without(&pairs, chosen), part_of) / 1000.0
            });
            results.row(part, "no tracer", what, alone);
        }
    }
    Ok(())
}

/// What a tracer adds to a quantile, in per cent, over resamples of the pairs.
fn added(pairs: &[&Pair], part: f64) -> Option<Figure> {
    figures::bootstrap(pairs.len(), |chosen| {
        let with: Vec<&Latencies> = chosen.iter().map(|at| &pairs[*at].with).collect();
        (quantile(&with, part) / quantile(&without(pairs, chosen), part) - 1.0) * 100.0
    })
}

fn without<'a>(pairs: &[&'a Pair], chosen: &[usize]) -> Vec<&'a Latencies> {
    chosen.iter().flat_map(|at| &pairs[*at].without).collect()
}

fn goal(protocol: &str, part: f64) -> Option<&'static Goal> {
    Some(match (protocol, part) {
        ("tcp", 0.99) => &goals::TCP_P99,
        ("tcp", 0.999) => &goals::TCP_P99_9,
        ("udp", 0.99) => &goals::UDP_P99,
        ("udp", 0.999) => &goals::UDP_P99_9,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_more_is_ten_per_cent() {
        let slice = |factor: u64| Latencies::new((1..=100).map(|value| (value * factor, 10)));
        let pair = || Pair { with: slice(11), without: [slice(10), slice(10)] };
        let pairs = [pair(), pair(), pair()];
        let pairs: Vec<&Pair> = pairs.iter().collect();
        for (part, _) in QUANTILES {
            let figure = added(&pairs, part).unwrap();
            assert!((figure.median - 10.0).abs() < 1e-9, "{part}: {figure:?}");
        }
    }
}
