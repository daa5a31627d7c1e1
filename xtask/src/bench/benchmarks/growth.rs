//! How the cost of a NET_RX cycle grows with CPUs under load, queues and stalls: run time of the
//! programs per NET_RX softirq without the cost of the statistics, in relation to the smallest load
//! of the same round.

use std::thread;

use anyhow::{Context, Result, ensure};

use crate::bench::{
    built::Built,
    figures,
    goals::{self, Goal},
    load::{Load, Slice},
    plan::Plan,
    programs::{self, Statistics},
    results::Results,
    softirqs,
    tools::{noop, ours},
};
use crate::process;

const BENCHMARK: &str = "Growth: ours, cycle, program run time";

/// Short stalls count, too: see `some-stalls` of the load.
const ARGUMENTS: &str = "--threshold 15us";

/// Frames a second of which some are stalls.
const FRAMES: u64 = 50_000;

/// Loads at one size.
struct Size {
    name: &'static str,
    /// They run at the same time.
    loads: &'static [&'static [&'static str]],
}

/// Sizes of one kind, the smallest first.
struct Kind {
    goal: &'static Goal,
    /// Events a second; `None`: as many as possible.
    rate: Option<u64>,
    sizes: &'static [Size],
}

const fn size(name: &'static str, loads: &'static [&'static [&'static str]]) -> Size {
    Size { name, loads }
}

static KINDS: [Kind; 3] = [
    Kind {
        goal: &goals::GROWTH_CPUS,
        rate: None,
        sizes: &[size("1 CPU", &[&["udp", "1"]]), size("2 CPUs", &[&["udp", "0"], &["udp", "1"]])],
    },
    Kind {
        goal: &goals::GROWTH_QUEUES,
        rate: None,
        sizes: &[
            size("1 queue", &[&["queues", "1"]]),
            size("4 queues", &[&["queues", "4"]]),
            size("16 queues", &[&["queues", "16"]]),
            size("64 queues", &[&["queues", "64"]]),
        ],
    },
    Kind {
        goal: &goals::GROWTH_STALLS,
        rate: Some(FRAMES),
        sizes: &[
            size("0 stalls/s", &[&["some-stalls", "0"]]),
            size("100 stalls/s", &[&["some-stalls", "500"]]),
            size("1,000 stalls/s", &[&["some-stalls", "50"]]),
            size("10,000 stalls/s", &[&["some-stalls", "5"]]),
        ],
    },
];

pub(crate) fn run(built: &Built, plan: &Plan, results: &mut Results) -> Result<()> {
    let _statistics = Statistics::enable()?;
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    ensure!(cpus >= 2, "growth with CPUs needs two of them");
    for kind in &KINDS {
        measure_kind(built, plan, kind, results)?;
    }
    Ok(())
}

fn measure_kind(built: &Built, plan: &Plan, kind: &Kind, results: &mut Results) -> Result<()> {
    let start = |arguments: &&[&str]| Load::start(built, arguments);
    let mut loads: Vec<Vec<Load>> = Vec::new();
    for size in kind.sizes {
        loads.push(size.loads.iter().map(start).collect::<Result<_>>()?);
    }
    let mut order: Vec<usize> = (0..kind.sizes.len()).collect();
    let mut costs: Vec<Vec<f64>> = vec![Vec::new(); kind.sizes.len()];
    for round in 0..plan.rounds {
        let largest = kind.sizes.last().context("no size")?.name;
        process::step(&format!("{BENCHMARK}, {largest}: round {} of {}", round + 1, plan.rounds));
        order.rotate_left(1);
        for &at in &order {
            let statistics =
                noop::statistics_ns(built, || slices(plan, kind.rate, &mut loads[at]))?;
            let cost = measure(built, plan, kind, at, &mut loads[at], statistics, results)?;
            costs[at].push(cost);
        }
    }
    let smallest = &costs[0];
    let mut growth = None;
    for (size, costs) in kind.sizes.iter().zip(&costs) {
        let ratios: Vec<f64> = costs.iter().zip(smallest).map(|(cost, of)| cost / of).collect();
        growth = figures::of(&ratios);
        results.row(BENCHMARK, size.name, "ns a cycle", figures::of(costs));
        results.row(BENCHMARK, size.name, "of the smallest", growth);
    }
    results.goal(kind.goal, growth);
    Ok(())
}

/// Run time per NET_RX softirq, ns.
fn measure(
    built: &Built,
    plan: &Plan,
    kind: &Kind,
    at: usize,
    loads: &mut [Load],
    statistics: f64,
    results: &mut Results,
) -> Result<f64> {
    let tracer = ours::cycle_with(built, ARGUMENTS).start()?;
    let (before, cycles_before) = (programs::of_process(tracer.id())?, softirqs::net_rx()?);
    let slices = slices(plan, kind.rate, loads)?;
    let (after, cycles_after) = (programs::of_process(tracer.id())?, softirqs::net_rx()?);
    let summary = ours::summary(&tracer.stop()?).context("latency-user ended without a summary")?;
    let stalls: u64 = slices.iter().map(|slice| slice.stalls).sum();
    let name = kind.sizes[at].name;
    results.check(
        format!("{name}: every stall is counted"),
        ours::stalls(&summary) >= stalls,
        || format!("{} of {stalls}", ours::stalls(&summary)),
    );
    let spent = programs::since(&after, &before);
    let cycles = cycles_after.since(&cycles_before);
    results.check(format!("{name}: there was load"), cycles > 0, || "none".to_owned());
    Ok((spent.ns as f64 - spent.runs as f64 * statistics) / cycles as f64)
}

/// One slice of each load, all at the same time.
fn slices(plan: &Plan, rate: Option<u64>, loads: &mut [Load]) -> Result<Vec<Slice>> {
    for load in loads.iter_mut() {
        load.begin(plan.slice, rate)?;
    }
    loads.iter_mut().map(Load::end).collect()
}
