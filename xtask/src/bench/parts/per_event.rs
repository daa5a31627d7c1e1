//! Kernel run time of the programs, by the kernel's own statistics, for each NET_RX softirq.
//!
//! What the statistics themselves cost is what they say of programs that do nothing, in the same
//! round; it is subtracted for each run of a program.

use anyhow::Result;

use super::check_counts;
use crate::bench::{
    Built, Plan,
    contenders::{Contender, bpftrace, floors, ours, softirqs},
    figures, goals,
    load::Load,
    programs::{self, Statistics},
    results::Results,
    rounds, softirqs as kernel,
};

const PART: &str = "Per event: program run time, UDP over loopback";

/// A slice of one contender, for each NET_RX softirq.
struct Cost {
    ns: f64,
    runs: f64,
}

pub(crate) fn run(
    built: &Built,
    plan: &Plan,
    contenders: &[Contender],
    results: &mut Results,
) -> Result<()> {
    let _statistics = Statistics::enable()?;
    let mut load = Load::start(built, &["udp"])?;
    let mut checks = Results::default();
    let rounds = rounds::run(PART, contenders, plan.rounds, results, |contender| {
        measure(contender, &mut load, plan, &mut checks)
    });
    results.checks.append(&mut checks.checks);

    let empty = at(contenders, floors::EMPTY);
    // For each round and contender, ns a cycle without what the statistics cost.
    let net: Vec<Vec<Option<f64>>> = rounds
        .iter()
        .map(|round| {
            let statistics = empty.and_then(|at| round[at].as_ref()).map(|one| one.ns / one.runs);
            round
                .iter()
                .map(|one| one.as_ref().zip(statistics).map(|(one, s)| one.ns - one.runs * s))
                .collect()
        })
        .collect();
    let ratio = |above: &str, below: &str| {
        let (above, below) = (at(contenders, above)?, at(contenders, below)?);
        let ratios: Vec<f64> =
            net.iter().filter_map(|round| Some(round[above]? / round[below]?)).collect();
        figures::of(&ratios)
    };
    for (place, contender) in contenders.iter().enumerate() {
        let of = |value: fn(&Cost) -> f64| {
            let values: Vec<f64> =
                rounds.iter().filter_map(|round| round[place].as_ref().map(value)).collect();
            figures::of(&values)
        };
        let Some(per_run) = of(|one| one.ns / one.runs) else { continue };
        results.row(PART, contender.name, "ns a run", Some(per_run));
        results.row(PART, contender.name, "runs a cycle", of(|one| one.runs));
        results.row(PART, contender.name, "ns a cycle", of(|one| one.ns));
        if contender.name != floors::EMPTY {
            let values: Vec<f64> = net.iter().filter_map(|round| round[place]).collect();
            results.row(PART, contender.name, "less statistics", figures::of(&values));
            results.row(
                PART,
                contender.name,
                "of softirqs -d",
                ratio(contender.name, softirqs::NAME),
            );
        }
    }
    results.goal(&goals::CYCLE_TO_SOFTIRQS, ratio(ours::CYCLE, softirqs::NAME));
    results.goal(&goals::CYCLE_TO_FLOOR, ratio(ours::CYCLE, floors::AS_OURS));
    results.goal(&goals::BPFTRACE_TO_CYCLE, ratio(bpftrace::NAME, ours::CYCLE));
    Ok(())
}

fn measure(
    contender: &Contender,
    load: &mut Load,
    plan: &Plan,
    checks: &mut Results,
) -> Result<Cost> {
    let tracer = contender.start()?;
    let (before, cycles_before) = (programs::of_process(tracer.id())?, kernel::net_rx()?);
    let slice = load.slice(plan.slice, None)?;
    let (after, cycles_after) = (programs::of_process(tracer.id())?, kernel::net_rx()?);
    let said = tracer.stop()?;
    check_counts(contender, &said, slice.sent, checks);
    let spent = programs::since(&after, &before);
    checks.check(format!("{} ran", contender.name), spent.runs > 0, || "not once".to_owned());
    let cycles = cycles_after.since(&cycles_before) as f64;
    Ok(Cost { ns: spent.ns as f64 / cycles, runs: spent.runs as f64 / cycles })
}

fn at(contenders: &[Contender], name: &str) -> Option<usize> {
    contenders.iter().position(|one| one.name == name)
}
