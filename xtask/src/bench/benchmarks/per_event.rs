//! Run time of the programs per NET_RX softirq, by the kernel's own statistics.
//!
//! The cost of the statistics themselves is the time per run that they report for empty programs in
//! the same round; it is subtracted for each run of a program.

use anyhow::Result;

use super::{Traffic, check_counts};
use crate::bench::{
    built::Built,
    figures, goals,
    load::Load,
    plan::Plan,
    programs::{self, Statistics},
    results::Results,
    rounds, softirqs as kernel,
    tools::{noop, ours, softirqs, tool::Tool},
};

/// Cost of one slice of one tool, per NET_RX softirq.
struct Cost {
    ns: f64,
    runs: f64,
    packets: f64,
}

pub(crate) fn run(
    built: &Built,
    plan: &Plan,
    traffic: &Traffic,
    tools: &[Tool],
    results: &mut Results,
) -> Result<()> {
    let benchmark = traffic.per_event;
    let _statistics = Statistics::enable()?;
    let mut load = Load::start(built, traffic.load)?;
    let mut checks = Results::default();
    let rounds = rounds::run(benchmark, tools, plan.rounds, results, |tool| {
        measure(tool, &mut load, plan, &mut checks)
    });
    let packets = rounds.iter().flatten().flatten().map(|cost| cost.packets).collect::<Vec<_>>();
    // A poll that used up its budget is followed by an empty one, and others' softirqs count, too.
    let least = traffic.together as f64 / 4.0;
    checks.check(
        format!("{benchmark}: packets arrive {} at a time", traffic.together),
        figures::median(&packets) >= least,
        || format!("{:.1}", figures::median(&packets)),
    );
    results.row(benchmark, "the load", "packets a cycle", figures::of(&packets));
    results.checks.append(&mut checks.checks);

    let empty = at(tools, noop::EMPTY);
    // For each round and tool: ns per cycle without the cost of the statistics.
    let net: Vec<Vec<Option<f64>>> = rounds
        .iter()
        .map(|round| {
            let statistics =
                empty.and_then(|at| round[at].as_ref()).map(|cost| cost.ns / cost.runs);
            round
                .iter()
                .map(|cost| cost.as_ref().zip(statistics).map(|(cost, s)| cost.ns - cost.runs * s))
                .collect()
        })
        .collect();
    let ratio = |above: &str, below: &str| {
        let (above, below) = (at(tools, above)?, at(tools, below)?);
        let ratios: Vec<f64> =
            net.iter().filter_map(|round| Some(round[above]? / round[below]?)).collect();
        figures::of(&ratios)
    };
    for (place, tool) in tools.iter().enumerate() {
        let of = |value: fn(&Cost) -> f64| {
            let values: Vec<f64> =
                rounds.iter().filter_map(|round| round[place].as_ref().map(value)).collect();
            figures::of(&values)
        };
        let Some(per_run) = of(|cost| cost.ns / cost.runs) else { continue };
        results.row(benchmark, tool.name, "ns a run", Some(per_run));
        results.row(benchmark, tool.name, "runs a cycle", of(|cost| cost.runs));
        results.row(benchmark, tool.name, "ns a cycle", of(|cost| cost.ns));
        if tool.name != noop::EMPTY {
            let values: Vec<f64> = net.iter().filter_map(|round| round[place]).collect();
            results.row(benchmark, tool.name, "less statistics", figures::of(&values));
            results.row(benchmark, tool.name, "of softirqs -d", ratio(tool.name, softirqs::NAME));
        }
    }
    if traffic.is_judged {
        results.goal(&goals::CYCLE_TO_SOFTIRQS, ratio(ours::CYCLE, softirqs::NAME));
    }
    Ok(())
}

fn measure(tool: &Tool, load: &mut Load, plan: &Plan, checks: &mut Results) -> Result<Cost> {
    let tracer = tool.start()?;
    let (before, cycles_before) = (programs::of_process(tracer.id())?, kernel::net_rx()?);
    let slice = load.slice(plan.slice, None)?;
    let (after, cycles_after) = (programs::of_process(tracer.id())?, kernel::net_rx()?);
    let output = tracer.stop()?;
    check_counts(tool, &output, slice.sent, checks);
    let spent = programs::since(&after, &before);
    checks.check(format!("{} ran", tool.name), spent.runs > 0, || "not once".to_owned());
    let cycles = cycles_after.since(&cycles_before) as f64;
    Ok(Cost {
        ns: spent.ns as f64 / cycles,
        runs: spent.runs as f64 / cycles,
        packets: slice.sent as f64 / cycles,
    })
}

fn at(tools: &[Tool], name: &str) -> Option<usize> {
    tools.iter().position(|tool| tool.name == name)
}
