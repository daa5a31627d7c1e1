//! `--sample-when stalled`: a CPU has the sampling clock only after it has stalled.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use latency_tests::{
    injector::{Injector, MARKED_PORT, is_its_program},
    load, namespace, veth,
};
use libtest_mimic::Trial;
use serde_json::Value;

use super::{
    queues::flow_of_each_queue,
    stalls::stretched,
    suite::{Where, trial},
    tracing::{Tracing, kinds, number},
};

/// Marked packets.
const STALLS: u64 = 23;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let tools = ["ip", "ethtool"];
    [
        trial("clocks::without_stalls_none_ticks", Where::Everywhere, &[], quiet),
        trial("clocks::after_a_stall_its_cpu_has_one", Where::Everywhere, &tools, stalling),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// How often the sampler ran while the kernel counted the runs of programs.
fn ticks(when: &str) -> Result<u64> {
    // Nothing takes that long.
    let tracing = Tracing::start(&["--threshold", "30s", "--sample-when", when])?;
    std::thread::sleep(Duration::from_secs(3));
    let summary = tracing.summary()?;
    let kernel = &summary["self_cost"]["kernel"];
    ensure!(kernel["measured_s"].as_f64() > Some(0.1), "{kernel}");
    let programs = kernel["programs"].as_array().context("no programs")?;
    let sampler = programs.iter().find(|program| program["program"] == "sample_stall");
    sampler.map_or(Ok(0), |program| number(program, "runs"))
}

fn quiet() -> Result<()> {
    let (always, stalled) = (ticks("always")?, ticks("stalled")?);
    ensure!(always > 50 && stalled == 0, "{always} ticks, {stalled} without stalls");
    Ok(())
}

/// Of stalls that follow one another, all but the first have stacks, and the first counts for no
/// function's share.
fn stalling() -> Result<()> {
    namespace::run(|| {
        load::pin_to(0)?;
        veth::make(4)?;
        let mut sender = veth::sender()?;
        let flow = flow_of_each_queue(&mut sender, MARKED_PORT)?[1];
        let spin = stretched(7);
        let mut injector = Injector::attach(spin)?;
        let threshold = format!("{}us", spin.as_micros());
        let tracing = Tracing::start(&[
            "--threshold",
            &threshold,
            "--sample-when",
            "stalled",
            "--stages",
            "napi_poll",
        ])?;
        injector.stall(&mut sender, flow, STALLS)?;
        let objects = tracing.objects()?;
        let stalls: Vec<&Value> = kinds(&objects, "stall")
            .filter(|stall| stall["stage"] == "napi_poll" && stall["cpu"] == 0)
            .collect();
        ensure!(stalls.len() as u64 >= STALLS, "{} stalls", stalls.len());
        let has_clock = |stall: &&&Value| stall["unsampled_ns"].is_u64();
        ensure!(!has_clock(&&stalls[0]), "{}", stalls[0]);
        ensure!(stalls[0]["samples"] == 0, "{}", stalls[0]);
        // The clock starts within milliseconds, which the next stall may take, too.
        let late = stalls.iter().skip(1).filter(|stall| !has_clock(stall)).count();
        ensure!(late <= 3, "{late} stalls more without a clock: {stalls:?}");
        for stall in stalls.iter().filter(has_clock) {
            let duration = number(stall, "duration_ns")?;
            let told = number(stall, "sampled_ns")? + number(stall, "unsampled_ns")?;
            ensure!(told <= duration + duration / 2, "{stall}");
        }
        let summary = objects.last().context("no summary")?;
        let time = &summary["stalls"]["time"];
        let first = number(stalls[0], "duration_ns")?;
        ensure!(number(time, "unclocked_ns")? >= first, "{time}");
        let blamed = summary["stalls"]["culprits"].as_array().into_iter().flatten();
        let share: f64 = blamed
            .filter(|culprit| culprit["function"].as_str().is_some_and(is_its_program))
            .filter_map(|culprit| culprit["share"].as_f64())
            .sum();
        ensure!(share > 0.5, "{summary}");
        Ok(())
    })
}
