//! How cost grows with events, queues and stalls, and what the other transport costs: ours alone,
//! at paces that the load keeps.
//!
//! In the kernel: the programs' run time less what the statistics cost, of one core. In user
//! space: CPU time of the process, of one core. What rows lose would be events of the load or
//! softirqs of the kernel's count that are not in them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::bench::{
    Built, Plan,
    contenders::{floors, ours},
    figures::{self, Figure},
    goals,
    load::Load,
    programs::{self, Statistics},
    results::Results,
    tracer::Said,
};
use crate::process;

const PART: &str = "Scale: ours, cycle";

/// More rounds would take long and show little.
const MOST_ROUNDS: usize = 5;

const MAPS: &str = "";
const RING: &str = "--transport ring --ring-events 1048576";

/// A load at a pace, and how it is traced.
struct Point {
    name: &'static str,
    load: &'static [&'static str],
    /// `None`: as fast as it goes.
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
    point("all that go", &["udp"], None, MAPS),
    point("50,000 events/s, ring", &["udp"], Some(50_000), RING),
    point("all that go, ring", &["udp"], None, RING),
    point("1 queue, 20,000/s", &["queues", "1"], Some(20_000), MAPS),
    point("4 queues, 20,000/s", &["queues", "4"], Some(20_000), MAPS),
    point("16 queues, 20,000/s", &["queues", "16"], Some(20_000), MAPS),
    point("10 stalls/s", &["stalls"], Some(10), MAPS),
    point("100 stalls/s", &["stalls"], Some(100), MAPS),
    point("400 stalls/s", &["stalls"], Some(400), MAPS),
];

/// One slice of a point.
struct Cost {
    events: f64,
    kernel: f64,
    user: f64,
    lost: f64,
}

pub(crate) fn run(built: &Built, plan: &Plan, results: &mut Results) -> Result<()> {
    let _statistics = Statistics::enable()?;
    let mut loads: BTreeMap<&[&str], Load> = BTreeMap::new();
    for one in POINTS {
        if !loads.contains_key(one.load) {
            loads.insert(one.load, Load::start(built, one.load)?);
        }
    }
    let rounds = plan.rounds.min(MOST_ROUNDS);
    let mut costs: Vec<Vec<Cost>> = POINTS.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        process::step(&format!("{PART}: round {} of {rounds}", round + 1));
        let statistics = statistics_ns(built, plan, loads.get_mut(&["udp"][..]))?;
        for (one, costs) in POINTS.iter().zip(&mut costs) {
            let load = loads.get_mut(one.load).context("a load is missing")?;
            costs.push(measure(built, plan, one, load, statistics, results)?);
        }
    }
    for (one, costs) in POINTS.iter().zip(&costs) {
        let of =
            |value: fn(&Cost) -> f64| figures::of(&costs.iter().map(value).collect::<Vec<_>>());
        results.row(PART, one.name, "events/s", of(|cost| cost.events));
        results.row(PART, one.name, "% core, kernel", of(|cost| cost.kernel));
        results.row(PART, one.name, "% core, user", of(|cost| cost.user));
        results.row(PART, one.name, "events lost", of(|cost| cost.lost));
    }
    let of_rows = POINTS.iter().zip(&costs).filter(|(one, _)| one.arguments == MAPS);
    let slices: Vec<f64> = of_rows.flat_map(|(_, costs)| costs).map(|cost| cost.lost).collect();
    // A sum and no estimate: one lost event is one too many.
    let lost = slices.iter().sum();
    let figure = Figure { median: lost, low: lost, high: lost, slices: slices.len() };
    results.goal(&goals::NOTHING_LOST, Some(figure));
    results.check("rows lose nothing", lost == 0.0, || format!("{lost} events"));
    Ok(())
}

/// What the statistics say of a program that does nothing, ns a run.
fn statistics_ns(built: &Built, plan: &Plan, load: Option<&mut Load>) -> Result<f64> {
    let tracer = floors::empty(built).start()?;
    let before = programs::of_process(tracer.id())?;
    load.context("no load of datagrams")?.slice(plan.slice, None)?;
    let spent = programs::since(&programs::of_process(tracer.id())?, &before);
    tracer.stop()?;
    Ok(spent.ns as f64 / spent.runs as f64)
}

fn measure(
    built: &Built,
    plan: &Plan,
    one: &Point,
    load: &mut Load,
    statistics: f64,
    results: &mut Results,
) -> Result<Cost> {
    let tracer = ours::cycle_with(built, one.arguments).start()?;
    let (before, user) = (programs::of_process(tracer.id())?, tracer.cpu_ms()?);
    let slice = load.slice(plan.slice, one.rate)?;
    let spent = programs::since(&programs::of_process(tracer.id())?, &before);
    let user = tracer.cpu_ms()? - user;
    let said = tracer.stop()?;
    let summary = ours::summary(&said).context("latency-user ended without a summary")?;
    if one.load == ["stalls"] {
        let stalls = ours::stalls(&summary);
        results.check(
            format!("{}: every stall is counted", one.name),
            stalls >= slice.sent,
            || format!("{stalls} of {}", slice.sent),
        );
    }
    results.check(format!("{}: there was load", one.name), slice.sent > 0, || "none".to_owned());
    let kernel = spent.ns as f64 - spent.runs as f64 * statistics;
    Ok(Cost {
        events: slice.rate(),
        kernel: kernel / 1e9 / slice.seconds * 100.0,
        user: user / 1e3 / slice.seconds * 100.0,
        lost: lost(&summary, &said, slice.sent) as f64,
    })
}

/// Packets of the load, or NET_RX softirqs of the kernel's count, that are not in the histograms.
fn lost(summary: &Value, said: &Said, sent: u64) -> u64 {
    let missing =
        |counted: Option<u64>, at_least: u64| at_least.saturating_sub(counted.unwrap_or(0));
    missing(ours::packets(summary), sent).max(missing(ours::net_rx(summary), said.least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_histograms_is_lost() {
        let summary = serde_json::json!({ "series": [
            { "stage": "net_rx", "count": 90 },
            { "stage": "napi_poll", "count": 90, "packets": 97 },
        ]});
        let said = |least| Said { least, ..Said::default() };
        assert_eq!(lost(&summary, &said(90), 97), 0);
        assert_eq!(lost(&summary, &said(90), 100), 3);
        assert_eq!(lost(&summary, &said(95), 97), 5);
    }
}
