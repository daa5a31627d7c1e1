//! How the cost of latency-user grows with events, queues and stalls, and the cost of the ring
//! transport, at fixed rates of the load and at its maximum.
//!
//! In the kernel: run time of the programs minus the cost of the statistics. In user space: CPU time
//! of the process. Both as a share of one core. Lost events are packets of the load, or softirqs
//! that the kernel counted, that are missing from the histograms.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::bench::{
    built::Built,
    figures::{self, Figure},
    goals,
    load::Load,
    plan::Plan,
    programs::{self, Statistics},
    results::Results,
    tools::{noop, ours},
    tracer::Output,
};
use crate::process;

const BENCHMARK: &str = "Scale: ours, cycle";

/// More rounds would take long and add little.
const MAX_ROUNDS: usize = 5;

const MAPS: &str = "";
const RING: &str = "--transport ring --ring-events 1048576";

/// A load at a given rate, and the arguments for tracing it.
struct Point {
    name: &'static str,
    load: &'static [&'static str],
    /// Events a second; `None`: as many as possible.
    rate: Option<u64>,
    arguments: &'static str,
}

const fn point(
    name: &'static str,
    load: &'static [&'static str],
    rate: Option<u64>,
    arguments: &'static str,
) -> Point {
    Point { name, load, rate, arguments }
}

const POINTS: &[Point] = &[
    point("1,000 events/s", &["udp"], Some(1000), MAPS),
    point("10,000 events/s", &["udp"], Some(10_000), MAPS),
    point("50,000 events/s", &["udp"], Some(50_000), MAPS),
    point("unlimited", &["udp"], None, MAPS),
    point("50,000 events/s, ring", &["udp"], Some(50_000), RING),
    point("unlimited, ring", &["udp"], None, RING),
    point("1 queue, 20,000/s", &["queues", "1"], Some(20_000), MAPS),
    point("4 queues, 20,000/s", &["queues", "4"], Some(20_000), MAPS),
    point("16 queues, 20,000/s", &["queues", "16"], Some(20_000), MAPS),
    point("10 stalls/s", &["stalls"], Some(10), MAPS),
    point("100 stalls/s", &["stalls"], Some(100), MAPS),
    point("400 stalls/s", &["stalls"], Some(400), MAPS),
];

/// Cost of one slice of a point.
struct Cost {
    events: f64,
    kernel: f64,
    user: f64,
    lost: f64,
}

pub(crate) fn run(built: &Built, plan: &Plan, results: &mut Results) -> Result<()> {
    let _statistics = Statistics::enable()?;
    let mut loads: BTreeMap<&[&str], Load> = BTreeMap::new();
    for point in POINTS {
        if !loads.contains_key(point.load) {
            loads.insert(point.load, Load::start(built, point.load)?);
        }
    }
    let rounds = plan.rounds.min(MAX_ROUNDS);
    let mut costs: Vec<Vec<Cost>> = POINTS.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        process::step(&format!("{BENCHMARK}: round {} of {rounds}", round + 1));
        let udp = loads.get_mut(&["udp"][..]).context("the UDP load is missing")?;
        let statistics = noop::statistics_ns(built, || udp.slice(plan.slice, None))?;
        for (point, costs) in POINTS.iter().zip(&mut costs) {
            let load = loads.get_mut(point.load).context("a load is missing")?;
            costs.push(measure(built, plan, point, load, statistics, results)?);
        }
    }
    for (point, costs) in POINTS.iter().zip(&costs) {
        let of =
            |value: fn(&Cost) -> f64| figures::of(&costs.iter().map(value).collect::<Vec<_>>());
        results.row(BENCHMARK, point.name, "events/s", of(|cost| cost.events));
        results.row(BENCHMARK, point.name, "% core, kernel", of(|cost| cost.kernel));
        results.row(BENCHMARK, point.name, "% core, user", of(|cost| cost.user));
        results.row(BENCHMARK, point.name, "events lost", of(|cost| cost.lost));
    }
    let of_rows = POINTS.iter().zip(&costs).filter(|(point, _)| point.arguments == MAPS);
    let slices: Vec<f64> = of_rows.flat_map(|(_, costs)| costs).map(|cost| cost.lost).collect();
    // A sum, not an estimate: a single lost event misses the goal.
    let lost = slices.iter().sum();
    let figure = Figure { median: lost, low: lost, high: lost, slices: slices.len() };
    results.goal(&goals::NOTHING_LOST, Some(figure));
    results.check("rows lose nothing", lost == 0.0, || format!("{lost} events"));
    Ok(())
}

fn measure(
    built: &Built,
    plan: &Plan,
    point: &Point,
    load: &mut Load,
    statistics: f64,
    results: &mut Results,
) -> Result<Cost> {
    let tracer = ours::cycle_with(built, point.arguments).start()?;
    let (before, user) = (programs::of_process(tracer.id())?, tracer.cpu_ms()?);
    let slice = load.slice(plan.slice, point.rate)?;
    let spent = programs::since(&programs::of_process(tracer.id())?, &before);
    let user = tracer.cpu_ms()? - user;
    let output = tracer.stop()?;
    let summary = ours::summary(&output).context("latency-user ended without a summary")?;
    if point.load == ["stalls"] {
        let stalls = ours::stalls(&summary);
        results.check(
            format!("{}: every stall is counted", point.name),
            stalls >= slice.sent,
            || format!("{stalls} of {}", slice.sent),
        );
    }
    results.check(format!("{}: there was load", point.name), slice.sent > 0, || "none".to_owned());
    let kernel = spent.ns as f64 - spent.runs as f64 * statistics;
    Ok(Cost {
        events: slice.per_second(),
        kernel: kernel / 1e9 / slice.seconds * 100.0,
        user: user / 1e3 / slice.seconds * 100.0,
        lost: lost(&summary, &output, slice.sent) as f64,
    })
}

/// Packets of the load, or NET_RX softirqs that the kernel counted, that are missing from the
/// histograms.
fn lost(summary: &Value, output: &Output, sent: u64) -> u64 {
    let missing =
        |counted: Option<u64>, at_least: u64| at_least.saturating_sub(counted.unwrap_or(0));
    missing(ours::packets(summary), sent).max(missing(ours::net_rx(summary), output.least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_missing_from_the_histograms_are_lost() {
        let summary = serde_json::json!({ "run": { "probes": [{ "stage": "napi_poll" }] }, "series": [
            { "stage": "net_rx", "count": 90 },
            { "stage": "napi_poll", "count": 90, "packets": 97 },
        ]});
        let output = |least| Output { least, ..Output::default() };
        assert_eq!(lost(&summary, &output(90), 97), 0);
        assert_eq!(lost(&summary, &output(90), 100), 3);
        assert_eq!(lost(&summary, &output(95), 97), 5);
    }
}
