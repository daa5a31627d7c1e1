//! `--sample-when stalled`, the default: until a CPU has stalled, its sampling clock is a slow one.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
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
        trial("clocks::without_stalls_they_are_slow", Where::Everywhere, &[], quiet),
        trial("clocks::after_a_stall_its_cpu_has_one", Where::Everywhere, &tools, stalling),
        trial("clocks::a_long_stall_gets_one", Where::Everywhere, &tools, long),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// How often the sampler and the one of the slow clock ran while the kernel counted the runs of
/// programs.
fn ticks(when: &str) -> Result<(u64, u64)> {
    // Nothing takes that long.
    let tracing = Tracing::start(&["--threshold", "30s", "--sample-when", when])?;
    std::thread::sleep(Duration::from_secs(3));
    let summary = tracing.summary()?;
    let kernel = &summary["self_cost"]["kernel"];
    ensure!(kernel["measured_s"].as_f64() > Some(0.1), "{kernel}");
    let programs = kernel["programs"].as_array().context("no programs")?;
    let runs = |name: &str| {
        let program = programs.iter().find(|program| program["program"] == name);
        program.map_or(Ok(0), |program| number(program, "runs"))
    };
    Ok((runs("sample_stall")?, runs("look_for_stall")?))
}

fn quiet() -> Result<()> {
    let (always, stalled) = (ticks("always")?, ticks("stalled")?);
    ensure!(always.0 > 50 && always.1 == 0, "{always:?}");
    ensure!(stalled.0 == 0 && stalled.1 > 0, "{stalled:?}");
    ensure!(stalled.1 * 8 < always.0, "{stalled:?} ticks without stalls, {always:?} always");
    Ok(())
}

/// Stalls of at least `threshold` by marked packets of `spin` on CPU 0, and the summary.
fn injected(spin: Duration, threshold: Duration, packets: u64) -> Result<(Vec<Value>, Value)> {
    veth::make(4)?;
    let mut sender = veth::sender()?;
    let flow = flow_of_each_queue(&mut sender, MARKED_PORT)?[1];
    let mut injector = Injector::attach(spin)?;
    let threshold = format!("{}us", threshold.as_micros());
    let tracing = Tracing::start(&["--threshold", &threshold, "--stages", "napi_poll"])?;
    // Not before: the tracer would inherit it, and could not start a clock meanwhile.
    load::pin_to(0)?;
    injector.stall(&mut sender, flow, packets)?;
    let mut objects = tracing.objects()?;
    let stalls: Vec<Value> = kinds(&objects, "stall")
        .filter(|stall| stall["stage"] == "napi_poll" && stall["cpu"] == 0)
        .cloned()
        .collect();
    ensure!(stalls.len() as u64 >= packets, "{} stalls", stalls.len());
    Ok((stalls, objects.pop().context("no summary")?))
}

/// Of stalls that follow one another, all but the first have stacks, and what had no clock counts
/// for no function's share.
fn stalling() -> Result<()> {
    namespace::run(|| {
        let (stalls, summary) = injected(stretched(7), stretched(7), STALLS)?;
        let has_clock = |stall: &&Value| stall["unsampled_ns"].is_u64();
        // The clock starts within milliseconds, which the next stall may take, too.
        let without: Vec<&Value> = stalls.iter().filter(|stall| !has_clock(stall)).collect();
        ensure!(without.len() <= 4, "{} stalls without a clock: {stalls:?}", without.len());
        let mut unclocked = 0;
        for stall in &without {
            ensure!(stall["samples"] == 0, "{stall}");
            unclocked += number(stall, "duration_ns")?;
        }
        for stall in stalls.iter().filter(has_clock) {
            let duration = number(stall, "duration_ns")?;
            let told = number(stall, "sampled_ns")? + number(stall, "unsampled_ns")?;
            ensure!(told <= duration + duration / 2, "{stall}");
        }
        let time = &summary["stalls"]["time"];
        ensure!(time["unclocked_ns"].as_u64().unwrap_or(0) >= unclocked, "{time}: {without:?}");
        let blamed = summary["stalls"]["culprits"].as_array().into_iter().flatten();
        let of_injector: u64 = blamed
            .filter(|culprit| culprit["function"].as_str().is_some_and(is_its_program))
            .filter_map(|culprit| culprit["samples"].as_u64())
            .sum();
        // Of the samples: an emulated CPU may not have run most of the time.
        ensure!(2 * of_injector > number(&summary["stalls"], "samples")?, "{summary}");
        Ok(())
    })
}

/// The slow clock sees a stall of several of its periods, and user space starts the other one in
/// the middle of it. A tracer that gets no CPU meanwhile is too late, so one stall of five is
/// enough.
fn long() -> Result<()> {
    let mut late = Vec::new();
    for _ in 0..5 {
        let (stalls, _) = namespace::run(|| injected(stretched(90), stretched(9), 1))?;
        let stall = &stalls[0];
        let clocked = stall["sampled_ns"].as_u64().zip(stall["unsampled_ns"].as_u64());
        let clocked = clocked.map_or(0, |(sampled, unsampled)| sampled + unsampled);
        if number(stall, "samples")? >= 10 && clocked > number(stall, "duration_ns")? / 3 {
            return Ok(());
        }
        late.push(stall.clone());
    }
    bail!("none of five stalls had its clock: {late:?}")
}
