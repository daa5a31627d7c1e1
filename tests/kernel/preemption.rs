//! Kernels whose softirqs can be preempted (PREEMPT_RT): what the stages mean there, and tasks that
//! run in the middle of NET_RX.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use latency_tests::{cpu_time, load, namespace, veth};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    injector::{Injector, MARKED_PORT, is_its_program},
    queues::flow_of_each_queue,
    suite::{Where, trial, vm_series},
    tracing::{Tracing, kinds, latency_user, number},
};

/// How long each packet is delayed in NET_RX.
const SPIN: Duration = Duration::from_millis(97);
const STALLS: u64 = 11;
/// How long the preempting task runs and rests in turn.
const STAY: Duration = Duration::from_millis(17);
const TASK: &str = "preemptor";

/// The tests of this file: none on other kernels.
pub(crate) fn trials() -> Vec<Trial> {
    if !vm_series().is_some_and(|series| series.ends_with("-rt")) {
        return Vec::new();
    }
    [
        trial("preemption::doctor_says_what_stages_mean", Where::Vm, &[], meaning),
        trial("preemption::a_preempting_task_is_named", Where::Vm, &["ip", "ethtool"], preempted),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn meaning() -> Result<()> {
    let output = latency_user()?.args(["doctor", "--format", "json"]).output()?;
    let diagnosis: Value = serde_json::from_slice(&output.stdout)?;
    for (stage, code) in [
        ("rx_wait", "waits-for-task"),
        ("net_rx", "preemptible-runs"),
        ("napi_poll", "preemptible-runs"),
        ("irq", "threaded-irqs"),
    ] {
        let mut stages = diagnosis["stages"].as_array().into_iter().flatten();
        let of_stage = stages.find(|of| of["stage"] == stage).context("no such stage")?;
        ensure!(of_stage["notes"][0]["code"] == code, "{of_stage}");
        ensure!(of_stage["would_use"] == "tracepoint", "{of_stage}");
    }
    Ok(())
}

/// A real-time task preempts NET_RX about half of the time. It is named with no more than the time
/// that it ran, and the rest is the injector's.
fn preempted() -> Result<()> {
    namespace::run(|| {
        veth::make(4)?;
        let mut sender = veth::sender()?;
        let flow = flow_of_each_queue(&mut sender, MARKED_PORT)?[0];
        let mut injector = Injector::attach(SPIN)?;
        let tracing = Tracing::start(&["--threshold", "50ms", "--sample-when", "always"])?;
        let (done, begin) = (AtomicBool::new(false), Barrier::new(2));
        let ran = thread::scope(|scope| {
            let task = thread::Builder::new().name(TASK.into()).spawn_scoped(scope, || {
                load::pin_to(0)?;
                real_time()?;
                begin.wait();
                run_and_rest(&done)
            })?;
            load::pin_to(0)?;
            begin.wait();
            let sent = injector.stall(&mut sender, flow, STALLS);
            done.store(true, Ordering::Relaxed);
            let ran = task.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sent.and(ran)
        })?;
        let objects = tracing.objects()?;
        let stalls: Vec<&Value> = kinds(&objects, "stall")
            .filter(|stall| stall["stage"] == "net_rx" && stall["cpu"] == 0)
            .collect();
        ensure!(stalls.len() as u64 >= STALLS, "{} stalls", stalls.len());
        let (mut of_task, mut shares, mut injected, mut duration) = (0, 0.0, 0.0, 0.0);
        for stall in &stalls {
            let all = number(stall, "duration_ns")?;
            let tasks = &stall["net_rx"]["tasks"];
            if tasks.is_null() {
                continue;
            }
            ensure!(number(tasks, "ns")? <= all, "{stall}");
            ensure!(number(tasks, "longest_ns")? <= number(tasks, "ns")?, "{stall}");
            ensure!(number(tasks, "runs")? > 0, "{stall}");
            if tasks["longest"]["comm"] == TASK {
                of_task += number(tasks, "ns")?;
            }
            duration += all as f64;
            for culprit in stall["culprits"].as_array().into_iter().flatten() {
                let share = culprit["share"].as_f64().context("no share")? * all as f64;
                match culprit["function"].as_str() {
                    Some("task:preemptor") => shares += share,
                    Some(function) if is_its_program(function) => injected += share,
                    _ => {}
                }
            }
        }
        let told = format!(
            "{of_task} ns by switches, {shares} by samples, the injector {injected}, of {duration}; \
             ran {ran:?}"
        );
        ensure!(of_task as f64 > 0.2 * duration, "{told}");
        ensure!(of_task <= ran.as_nanos() as u64, "{told}");
        // The samples agree with the switches, and what the task took is not the injector's. While
        // the machine itself does not run, its clock takes no samples.
        let sampled = shares + injected;
        let difference = shares / sampled - of_task as f64 / duration;
        ensure!(difference.abs() < 0.2, "{told}");
        ensure!(shares < of_task as f64 + 0.2 * duration, "{told}");
        ensure!(injected + of_task as f64 <= 1.1 * duration, "{told}");
        ensure!(injected > 0.2 * sampled, "{told}");
        ensure!(objects.last().context("no summary")?["ledger"]["balanced"] == true, "{objects:?}");
        Ok(())
    })
}

/// Gives this thread a priority above that of softirqs.
fn real_time() -> Result<()> {
    let parameter = libc::sched_param { sched_priority: 70 };
    // SAFETY: the parameter is valid for the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) };
    ensure!(result == 0, "SCHED_FIFO: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Runs and rests in turn. Returns how long it was on a CPU.
fn run_and_rest(done: &AtomicBool) -> Result<Duration> {
    while !done.load(Ordering::Relaxed) {
        let start = Instant::now();
        while start.elapsed() < STAY {
            std::hint::spin_loop();
        }
        thread::sleep(STAY);
    }
    Ok(cpu_time::of_this_thread())
}
