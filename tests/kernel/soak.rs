//! Tracers and experiments that are killed at random moments. Nothing stays attached or changed, and
//! what was recorded can be read. `cargo xtask test --soak` kills more of them.

use std::{
    env, fs,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aya::programs::loaded_programs;
use latency_tests::{namespace, veth};
use libtest_mimic::Trial;

use crate::{
    experiment::{CHANGED_FIRST, HARMLESS, RMEM, experiment, journals, kill, rmem},
    suite::{Where, trial},
    tracing::{Tracing, latency_user, wait_until},
};

/// Kills in CI: of tracers, of experiments.
const KILLS: [u32; 2] = [30, 10];

/// How long packets flood a tracer in CI, s.
const FLOOD: u32 = 12;

/// Multiplies them; a flood fifteen times as much: an hour for a factor of 20.
const FACTOR: &str = "LATENCY_SOAK";

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let host = |name, tools: &[&str], body| trial(name, Where::Host, tools, body);
    [
        host("soak::killed_tracers_leave_nothing", &["ip"], tracers),
        host("soak::killed_experiments_change_nothing", &["ip"], experiments),
        host("soak::a_flood_of_stalls_keeps_memory_flat", &["ip"], flood),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn times(kills: u32) -> u32 {
    let factor = env::var(FACTOR).ok().and_then(|factor| factor.parse().ok()).unwrap_or(1);
    kills * factor
}

/// Numbers of the loaded eBPF programs of this program, by the name of its marker and of one probe.
pub(crate) fn programs() -> Vec<u32> {
    let names = ["latency_user", "softirq_entry", "softirq_raise", "sample_stall"];
    let loaded = loaded_programs().filter_map(Result::ok);
    let ours = loaded.filter(|program| program.name_as_str().is_some_and(|n| names.contains(&n)));
    ours.map(|program| program.id()).collect()
}

fn tracers() -> Result<()> {
    let before = programs();
    namespace::run(|| {
        veth::make(1)?;
        let mut sender = veth::sender()?;
        let directory = tempfile::tempdir()?;
        let recording = directory.path().join("run.hlog");
        for number in 0..times(KILLS[0]) {
            let _ = fs::remove_file(&recording);
            let mut child = latency_user()?
                .args(["trace", "--interval", "20ms", "--threshold", "1us", "--output"])
                .arg(&recording)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            sender.send(50, 9)?;
            thread::sleep(Duration::from_millis(fastrand::u64(..600)));
            let text = format!("kill {number}");
            end(&mut child).with_context(|| text.clone())?;
            wait_until(&text, || Ok(programs() == before))?;
            is_readable(&recording).with_context(|| text.clone())?;
            ensure!(directory.path().read_dir()?.count() <= 1, "{text}: a file was left");
        }
        Ok(())
    })
}

fn end(child: &mut Child) -> Result<()> {
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// A recording that was begun can be read up to its last complete interval.
fn is_readable(recording: &Path) -> Result<()> {
    let text = fs::read_to_string(recording).unwrap_or_default();
    if !text.contains("\"kind\":\"interval\"") {
        return Ok(());
    }
    let output = latency_user()?.args(["report", "--format", "json"]).arg(recording).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn experiments() -> Result<()> {
    let programs_before = programs();
    namespace::run(|| {
        let before = rmem()?;
        for number in 0..times(KILLS[1]) {
            let directory = tempfile::tempdir()?;
            let mut child = experiment(directory.path(), HARMLESS)?
                .args(["--window", "1s", "--settle", "50ms", "--rounds", "1"])
                .args(CHANGED_FIRST)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            thread::sleep(Duration::from_millis(fastrand::u64(..4500)));
            // The experiment, its watchdog, or both, in either order; or it is stopped for good.
            let watchdog = watchdog(&child);
            let how = fastrand::u8(..5);
            let text = format!("kill {number}, way {how}");
            match (how, watchdog) {
                // Either may have ended before the signal reaches it.
                (1, Some(watchdog)) => drop(kill(watchdog, libc::SIGKILL)),
                (2, Some(watchdog)) => {
                    let _ = kill(watchdog, libc::SIGKILL);
                    end(&mut child)?;
                }
                (3, Some(watchdog)) => {
                    let _ = kill(watchdog, libc::SIGSTOP);
                    end(&mut child)?;
                    let _ = kill(watchdog, libc::SIGKILL);
                }
                (4, Some(_)) => {
                    let _ = kill(child.id() as i32, libc::SIGSTOP);
                    wait_until(&text, || Ok(rmem()? == before))?;
                    end(&mut child)?;
                }
                _ => end(&mut child)?,
            }
            child.wait()?;
            if matches!(how, 2 | 3) {
                let state = directory.path().join("state");
                let mut undo = latency_user()?;
                undo.args(["experiment", "--undo", "--state"]).arg(&state);
                let output = undo.output()?;
                let message = String::from_utf8_lossy(&output.stderr);
                ensure!(output.status.success(), "{text}: {message}");
            }
            wait_until(&text, || Ok(rmem()? == before))
                .with_context(|| format!("{text}: {RMEM} holds {}", rmem().unwrap_or_default()))?;
            let is_journal = |name: &String| name.ends_with(".journal");
            wait_until(&text, || Ok(!journals(directory.path()).iter().any(is_journal)))?;
            wait_until(&text, || Ok(programs() == programs_before))?;
        }
        Ok(())
    })
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) resident_kib: u64,
    pub(crate) descriptors: usize,
}

pub(crate) fn held(pid: u32) -> Result<Held> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let resident = line.trim().trim_end_matches(" kB").parse()?;
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    Ok(Held { resident_kib: resident, descriptors })
}

/// Nearly each event is a stall, with a record and samples. What the tracer holds does not grow, and
/// its books balance.
#[expect(clippy::print_stderr, reason = "the figures of a long run are its result")]
fn flood() -> Result<()> {
    let factor = times(1);
    let seconds = if factor == 1 { FLOOD } else { FLOOD * factor * 15 };
    namespace::run(|| {
        veth::make(1)?;
        let mut sender = veth::sender()?;
        let directory = tempfile::tempdir()?;
        let recording = directory.path().join("run.hlog");
        let path = recording.to_string_lossy().into_owned();
        let arguments = ["--interval", "1s", "--threshold", "2us", "--output", &path];
        let tracing = Tracing::start(&arguments)?;
        let pid = tracing.id();
        let (start, length) = (Instant::now(), Duration::from_secs(seconds.into()));
        let mut early: Option<Held> = None;
        while start.elapsed() < length {
            sender.send(2000, 9)?;
            // What is allocated once, is by then.
            if early.is_none() && start.elapsed() > length / 3 {
                early = Some(held(pid)?);
            }
        }
        let (early, late) = (early.context("too short")?, held(pid)?);
        let summary = tracing.summary()?;
        let bytes = recording.metadata()?.len();
        let events = summary["ledger"]["stages"].as_array().into_iter().flatten();
        let started: u64 = events.filter_map(|stage| stage["started"].as_u64()).sum();
        let stalls: u64 = summary["stalls"]["by_stage"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(_, count)| count.as_u64())
            .sum();
        eprintln!(
            "{seconds} s: {started} events, {stalls} stalls, {early:?} to {late:?}, {bytes} bytes"
        );
        ensure!(summary["ledger"]["balanced"] == true, "{}", summary["ledger"]);
        ensure!(stalls > u64::from(seconds), "no storm: {stalls} stalls");
        // A file that is being read, and the packet probe, come and go.
        ensure!(late.descriptors <= early.descriptors + 4, "{early:?}, {late:?}");
        ensure!(late.resident_kib <= early.resident_kib + 8192, "{early:?}, {late:?}");
        is_readable(&recording)
    })
}

/// The watchdog of an experiment, if it has been started.
fn watchdog(experiment: &Child) -> Option<i32> {
    let path = format!("/proc/{0}/task/{0}/children", experiment.id());
    fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}
