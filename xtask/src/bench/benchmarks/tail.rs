//! Latency of ping-pong over a veth pair, with and without a tracer.

use std::cell::RefCell;

use anyhow::Result;

use super::check_counts;
use crate::bench::{
    built::Built,
    figures::{self, Figure},
    goals::{self, Goal},
    latencies::{Latencies, quantile},
    load::Load,
    plan::Plan,
    results::Results,
    rounds,
    tools::{ours, tool::Tool},
};

const BENCHMARKS: [(&str, &str); 2] = [
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

/// A slice with a tracer, and the adjacent slices without one.
struct Pair {
    with: Latencies,
    without: [Latencies; 2],
}

pub(crate) fn run(built: &Built, plan: &Plan, tools: &[Tool], results: &mut Results) -> Result<()> {
    for (protocol, benchmark) in BENCHMARKS {
        let load = RefCell::new(Load::start(built, &["ping", protocol])?);
        let slice = || load.borrow_mut().slice(plan.slice, None);
        let mut checks = Results::default();
        let mut before = slice()?.latencies;
        let rounds = rounds::run(benchmark, tools, plan.rounds, results, |tool| {
            let tracer = tool.start()?;
            let with = slice()?;
            let output = tracer.stop()?;
            check_counts(tool, &output, with.received, &mut checks);
            let after = slice()?.latencies;
            let without = [std::mem::replace(&mut before, after.clone()), after];
            Ok(Pair { with: with.latencies, without })
        });
        results.checks.append(&mut checks.checks);
        for (place, tool) in tools.iter().enumerate() {
            let pairs: Vec<&Pair> =
                rounds.iter().filter_map(|round| round[place].as_ref()).collect();
            if pairs.is_empty() {
                continue;
            }
            for (q, what) in QUANTILES {
                let figure = added(&pairs, q);
                if tool.name == ours::EVERYTHING
                    && let Some(goal) = goal(protocol, q)
                {
                    results.goal(goal, figure);
                }
                results.row(benchmark, tool.name, what, figure);
            }
        }
        let pairs: Vec<&Pair> = rounds.iter().flatten().flatten().collect();
        for (q, what) in
            [(0.5, "p50, us"), (0.99, "p99, us"), (0.999, "p99.9, us"), (0.9999, "p99.99, us")]
        {
            let alone = figures::bootstrap(pairs.len(), |chosen| {
                quantile(&without(&pairs, chosen), q) / 1000.0
            });
            results.row(benchmark, "no tracer", what, alone);
        }
    }
    Ok(())
}

/// Increase of quantile `q` by a tracer, in per cent, over resamples of the pairs.
fn added(pairs: &[&Pair], q: f64) -> Option<Figure> {
    figures::bootstrap(pairs.len(), |chosen| {
        let with: Vec<&Latencies> = chosen.iter().map(|at| &pairs[*at].with).collect();
        (quantile(&with, q) / quantile(&without(pairs, chosen), q) - 1.0) * 100.0
    })
}

fn without<'a>(pairs: &[&'a Pair], chosen: &[usize]) -> Vec<&'a Latencies> {
    chosen.iter().flat_map(|at| &pairs[*at].without).collect()
}

fn goal(protocol: &str, q: f64) -> Option<&'static Goal> {
    Some(match (protocol, q) {
        ("tcp", 0.5) => &goals::TCP_P50,
        ("tcp", 0.99) => &goals::TCP_P99,
        ("tcp", 0.999) => &goals::TCP_P99_9,
        ("udp", 0.5) => &goals::UDP_P50,
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
        for (q, _) in QUANTILES {
            let figure = added(&pairs, q).unwrap();
            assert!((figure.median - 10.0).abs() < 1e-9, "{q}: {figure:?}");
        }
    }
}
