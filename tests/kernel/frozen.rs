//! A machine that is not run for a while: what a hypervisor does that gives its CPUs to others. And
//! code that cannot be interrupted.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use latency_tests::{load, namespace, veth};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    injector::{Injector, MARKED_PORT, is_its_program},
    queues::flow_of_each_queue,
    suite::{Where, trial, trial_since},
    tracing::{Tracing, kinds, latency_user, number},
};

/// How long the machine is not run, and how often that must be seen: a prime number. More pauses are
/// requested, since some fall between two packets.
const FROZEN_MS: u64 = 15;
const TIMES: usize = 7;
const REQUESTS: usize = 11;
/// How long each packet is delayed in NET_RX, which so runs nearly all the time.
const SPIN: Duration = Duration::from_millis(40);
/// How long packets are delayed with interrupts off, and how many.
const MASKED: Duration = Duration::from_millis(30);
const MASKED_STALLS: u64 = 17;
/// A period of the sampling clock, and what an emulated clock is late by, ns.
const TICK_NS: u64 = 2_000_000;

/// The tests of this file: the emulator is stopped at the request of the machine in it.
pub(crate) fn trials() -> Vec<Trial> {
    let tools = ["ip", "ethtool"];
    [
        trial("stalls::time_that_was_stolen_is_nobodys", Where::Vm, &tools, stolen),
        trial_since(
            (5, 17),
            "stalls::interrupts_off_are_seen_or_said",
            Where::Everywhere,
            &tools,
            masked,
        ),
        trial("stalls::each_clock_names_the_culprit", Where::Everywhere, &tools, unmasked),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Pauses during NET_RX are found as time of no function, a function has no more than its samples,
/// and the injector has nearly all of what was sampled.
fn stolen() -> Result<()> {
    namespace::run(|| {
        veth::make(4)?;
        let mut sender = veth::sender()?;
        let flow = flow_of_each_queue(&mut sender, MARKED_PORT)?[0];
        let mut injector = Injector::attach(SPIN)?;
        let tracing = Tracing::start(&["--threshold", "10ms", "--sample-when", "always"])?;
        load::pin_to(0)?;
        for _ in 0..REQUESTS {
            freeze();
            // A CPU without time to spare would hold up the request.
            thread::sleep(Duration::from_millis(100));
            // Until well after it is fulfilled.
            injector.stall(&mut sender, flow, 17)?;
        }
        let objects = tracing.objects()?;
        let stalls: Vec<&Value> = kinds(&objects, "stall")
            .filter(|stall| stall["stage"] == "net_rx" && stall["cpu"] == 0)
            .collect();
        let mut stolen = 0;
        let (mut sampled, mut of_injector) = (0.0, 0.0);
        for stall in &stalls {
            let duration = number(stall, "duration_ns")?;
            let unsampled = number(stall, "unsampled_ns")?;
            stolen += usize::from(unsampled + TICK_NS >= FROZEN_MS * 1_000_000);
            let shares = stall["culprits"].as_array().into_iter().flatten();
            let mut sum = unsampled as f64 / duration as f64;
            for culprit in shares {
                let share = culprit["share"].as_f64().context("no share")?;
                let most = number(culprit, "samples")? as f64 * 1.01e6 / duration as f64;
                ensure!(share <= most, "more than its samples: {culprit} of {stall}");
                sum += share;
                sampled += share * duration as f64;
                if culprit["function"].as_str().is_some_and(is_its_program) {
                    of_injector += share * duration as f64;
                }
            }
            ensure!(sum <= 1.001, "{sum}: {stall}");
        }
        ensure!(stolen >= TIMES, "{stolen} of {TIMES} pauses: {stalls:?}");
        ensure!(of_injector >= 0.9 * sampled, "{of_injector} of {sampled} ns: {stalls:?}");
        let time = &objects.last().context("no summary")?["stalls"]["time"];
        let unsampled = number(time, "unsampled_ns")?;
        ensure!(unsampled + 7 * TICK_NS >= TIMES as u64 * FROZEN_MS * 1_000_000, "{time}");
        Ok(())
    })
}

/// A clock that ticks while interrupts are off names the code that runs then. To others, such time
/// is nobody's.
fn masked() -> Result<()> {
    for clock in clocks()? {
        let Blame { seen, sampled, unsampled, everything } =
            blame(clock, &mut || Injector::attach_masked(MASKED))?;
        let text = format!("{clock}: {seen} of {sampled} sampled, {unsampled} not");
        match everything {
            true => ensure!(seen > 0.1 && seen > 0.85 * sampled, "{text}"),
            false => ensure!(unsampled > 0.8 && seen < 0.1, "{text}"),
        }
    }
    Ok(())
}

/// Whatever the clock counts, the culprit is named where interrupts are on. An emulated counter of
/// cycles goes on while its CPU idles, which makes its ticks rarer.
fn unmasked() -> Result<()> {
    for clock in clocks()? {
        let Blame { seen, sampled, unsampled, .. } =
            blame(clock, &mut || Injector::attach(MASKED))?;
        let text = format!("{clock}: {seen} of {sampled} sampled, {unsampled} not");
        ensure!(seen > 0.85 * sampled, "{text}");
        ensure!(sampled + unsampled > 0.3, "{text}");
    }
    Ok(())
}

/// The clocks that work here. One that does not is refused before anything is attached.
fn clocks() -> Result<Vec<&'static str>> {
    let traced = |clock| {
        let arguments = ["trace", "--duration", "100ms", "--sample-clock", clock];
        latency_user()?.args(arguments).output().context("start the program")
    };
    let cycles = traced("cycles")?;
    if cycles.status.success() {
        return Ok(vec!["time", "cycles"]);
    }
    let error = String::from_utf8_lossy(&cycles.stderr);
    ensure!(error.contains("cycles cannot be the clock of samples"), "{error}");
    Ok(vec!["time"])
}

/// Shares of the time of injected stalls.
struct Blame {
    /// Of which the injector is blamed.
    seen: f64,
    /// That samples stand for.
    sampled: f64,
    /// In which the clock was overdue.
    unsampled: f64,
    /// Whether the clock ticks while interrupts are off.
    everything: bool,
}

fn blame(clock: &str, attach: &mut (dyn FnMut() -> Result<Injector> + Send)) -> Result<Blame> {
    namespace::run(|| {
        veth::make(4)?;
        let mut sender = veth::sender()?;
        let flow = flow_of_each_queue(&mut sender, MARKED_PORT)?[0];
        let mut injector = attach()?;
        let tracing = Tracing::start(&[
            "--threshold",
            "10ms",
            "--sample-when",
            "always",
            "--sample-clock",
            clock,
        ])?;
        load::pin_to(0)?;
        injector.stall(&mut sender, flow, MASKED_STALLS)?;
        let objects = tracing.objects()?;
        let sampling = &objects.last().context("no summary")?["run"]["sampling"];
        let stalls: Vec<&Value> = kinds(&objects, "stall")
            .filter(|stall| stall["stage"] == "napi_poll" && stall["cpu"] == 0)
            .collect();
        ensure!(stalls.len() as u64 >= MASKED_STALLS, "{} stalls", stalls.len());
        let (mut whole, mut sampled, mut unsampled, mut of_injector) = (0, 0, 0, 0.0);
        for stall in stalls {
            let duration = number(stall, "duration_ns")?;
            whole += duration;
            sampled += number(stall, "sampled_ns")?.min(duration);
            unsampled += number(stall, "unsampled_ns")?;
            for culprit in stall["culprits"].as_array().into_iter().flatten() {
                let function = culprit["function"].as_str().unwrap_or_default();
                if function == "bpf:masked_spin" || is_its_program(function) {
                    of_injector += culprit["share"].as_f64().unwrap_or(0.0) * duration as f64;
                }
            }
        }
        let everything = sampling["notes"][0]["code"] == "sampled-by-cycles";
        let of = |ns: u64| ns as f64 / whole as f64;
        let (sampled, unsampled) = (of(sampled), of(unsampled));
        Ok(Blame { seen: of_injector / whole as f64, sampled, unsampled, everything })
    })
}

/// Asks the host to stop this machine a little later: see `cargo xtask vm`.
#[expect(clippy::print_stdout, reason = "the host reads it from the machine's output")]
fn freeze() {
    println!("\nxtask-vm: freeze {FROZEN_MS}");
}
