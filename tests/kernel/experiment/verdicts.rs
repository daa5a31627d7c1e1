//! Conclusions of experiments under the case study's load, and what ends their windows early.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use latency_tests::{load, namespace, tool, veth};

use serde_json::Value;

use super::{CHANGED_FIRST, HARMLESS, RMEM, Running, experiment, result, rmem};
use crate::tracing::latency_user;

/// Longer than a connection of the load lives: it keeps the buffers it started with.
const SETTLE: &str = "1500ms";

/// An experiment that tries `to` under the load, which starts with `from`.
fn beside(directory: &Path, from: &str, to: &str) -> Result<Command> {
    let load = env::var_os("TCP_COLLAPSE_LOAD").context("TCP_COLLAPSE_LOAD is not set")?;
    let inner = experiment(directory, &format!("sysctl:net.ipv4.tcp_rmem={to}"))?;
    // The load's first connection has the large buffers whatever is set later, so outwait it.
    let first = format!("echo {from} > {RMEM}; sleep 1.5; exec \"$@\"");
    let mut command = Command::new(load);
    command.args(["beside", "sh", "-c", &first, "sh"]);
    command.arg(inner.get_program()).args(inner.get_args()).args(["--settle", SETTLE]);
    Ok(command)
}

/// How often a conclusion is sought: on a shared machine the load itself may not run in a window.
const TRIES: usize = 3;

/// Its stalls are of 16 ms and more: those of 1 to 3 ms that a hypervisor makes are in all windows.
const STALLS: [&str; 2] = ["--threshold", "4ms"];

/// Improves, ends early because that is clear, and is kept.
pub(super) fn improves() -> Result<()> {
    retried(improves_once)
}

fn retried(once: fn() -> Result<()>) -> Result<()> {
    let mut errors = Vec::new();
    for _ in 0..TRIES {
        match once() {
            Ok(()) => return Ok(()),
            Err(error) => errors.push(format!("{error:#}")),
        }
    }
    bail!("{}", errors.join("\n"))
}

fn improves_once() -> Result<()> {
    namespace::run(|| {
        let directory = tempfile::tempdir()?;
        let mut command = beside(directory.path(), load::LARGE_RMEM, load::SMALL_RMEM)?;
        command.args(["--window", "3s", "--rounds", "8", "--keep-if", "improved"]).args(STALLS);
        let (status, found) = result(&mut command)?;
        ensure!(status.success() && found["conclusion"] == "improved", "{status}: {found}");
        let comparison = &found["comparison"];
        let figures =
            ["estimate", "low", "high", "p", "method", "unit", "units", "verdict", "weak"];
        ensure!(figures.iter().all(|name| !comparison[name].is_null()), "{comparison}");
        ensure!(comparison["unit"] == "window" && comparison["method"] == "regression");
        ensure!(comparison["high"].as_f64() < Some(0.5), "{comparison}");
        ensure!(found["culprits"][0]["function"] == "tcp_collapse", "{}", found["culprits"]);
        let windows = found["windows"].as_array().context("no windows")?;
        ensure!(windows[0]["lead_in"] == true && windows[0]["changed"] == false, "{windows:?}");
        let of = |changed: bool| -> Vec<f64> {
            let windows = windows.iter().skip(1).filter(|window| window["changed"] == changed);
            windows.filter_map(|window| window["stalls_per_second"].as_f64()).collect()
        };
        let (without, with) = (of(false), of(true));
        ensure!(without.len() == with.len() && with.len() >= 4, "{windows:?}");
        let neighbours = &found["neighbours"];
        ensure!(neighbours["of"] == with.len() && neighbours["fewer"] == with.len(), "{found}");
        let sum = |of: &[f64]| of.iter().sum::<f64>();
        ensure!(sum(&with) < 0.5 * sum(&without), "{windows:?}");
        ensure!(found["setting"] == "kept" && rmem()? == load::SMALL_RMEM, "{found}");
        let page = fs::read_to_string(directory.path().join("out/report.html"))?;
        let points = page.matches("class=\"w0\"").count() + page.matches("class=\"w1\"").count();
        ensure!(points == windows.len() - 1 + 2, "{points} points of {} windows", windows.len());
        for word in ["tcp_collapse", load::SMALL_RMEM, "The new value is in place"] {
            ensure!(page.contains(word), "the page lacks {word:?}");
        }
        Ok(())
    })
}

/// With `--keep-if improved` nothing else is kept; a worse result has its own exit status. The limit
/// is never reached, so that no window ends early.
pub(super) fn worsens() -> Result<()> {
    retried(worsens_once)
}

fn worsens_once() -> Result<()> {
    namespace::run(|| {
        let directory = tempfile::tempdir()?;
        let mut command = beside(directory.path(), load::SMALL_RMEM, load::LARGE_RMEM)?;
        command.args(["--window", "3s", "--rounds", "8", "--keep-if", "improved"]).args(STALLS);
        let (status, found) = result(command.args(["--abort-if", "p50>10s"]))?;
        ensure!(status.code() == Some(4) && found["conclusion"] == "worse", "{status}: {found}");
        ensure!(found["aborted"].is_null(), "it was ended early: {found}");
        ensure!(found["setting"] == "original" && rmem()? == load::SMALL_RMEM, "{}", rmem()?);
        Ok(())
    })
}

/// Windows with the change have far more stalls than any stretch without it: two of them end early,
/// windows without the change follow, and the test of all says that it is worse.
pub(super) fn much_worse() -> Result<()> {
    retried(much_worse_once)
}

fn much_worse_once() -> Result<()> {
    namespace::run(|| {
        let directory = tempfile::tempdir()?;
        let mut command = beside(directory.path(), load::SMALL_RMEM, load::LARGE_RMEM)?;
        command.args(["--window", "8s", "--rounds", "8"]).args(STALLS).args(CHANGED_FIRST);
        let (status, found) = result(&mut command)?;
        ensure!(status.code() == Some(4) && found["conclusion"] == "worse", "{status}: {found}");
        ensure!(found["aborted"]["code"] == "stall-rate-above-limit", "{}", found["aborted"]);
        let windows = found["windows"].as_array().context("no windows")?;
        let changed: Vec<&Value> = windows.iter().filter(|w| w["changed"] == true).collect();
        ensure!(changed.len() == 2 && windows.len() >= 8, "{windows:?}");
        ensure!(changed.iter().all(|w| w["duration_s"].as_f64() < Some(8.0)), "{windows:?}");
        ensure!(rmem()? == load::SMALL_RMEM, "{}", rmem()?);
        Ok(())
    })
}

/// Under a load that stalls all the time. At 95 % confidence, one in twenty comparisons of equal
/// windows may show a difference, so one retry is allowed.
pub(super) fn same() -> Result<()> {
    same_once().or_else(|first| same_once().context(format!("failed twice; first: {first:#}")))
}

fn same_once() -> Result<()> {
    namespace::run(|| {
        let directory = tempfile::tempdir()?;
        let mut command = beside(directory.path(), load::LARGE_RMEM, load::LARGE_RMEM)?;
        command.args(["--window", "2s", "--rounds", "6", "--keep-if", "improved"]).args(STALLS);
        let (status, found) = result(&mut command)?;
        ensure!(status.success() && found["conclusion"] == "no_difference_shown", "{found}");
        ensure!(found["comparison"]["units_for_halving"].as_u64() >= Some(8), "{found}");
        ensure!(found["culprits"][0]["function"] == "tcp_collapse", "no stalls: {found}");
        ensure!(found["setting"] == "original" && rmem()? == load::LARGE_RMEM, "{}", rmem()?);
        Ok(())
    })
}

/// Without any change: how many windows it would take.
pub(super) fn plans() -> Result<()> {
    namespace::run(|| {
        let directory = tempfile::tempdir()?;
        let load = env::var_os("TCP_COLLAPSE_LOAD").context("TCP_COLLAPSE_LOAD is not set")?;
        let first = format!("echo {} > {RMEM}; sleep 1.5; exec \"$@\"", load::LARGE_RMEM);
        let mut command = Command::new(load);
        command.args(["beside", "sh", "-c", &first, "sh"]).arg(latency_user()?.get_program());
        command.args(["experiment", "--plan", "--window", "1s", "--format", "json", "--output"]);
        let (status, plan) = result(command.arg(directory.path()).args(STALLS))?;
        ensure!(status.success() && plan["kind"] == "plan", "{status}: {plan}");
        ensure!(plan["windows"].as_array().is_some_and(|windows| windows.len() == 8), "{plan}");
        ensure!(plan["stage"] == "stage=net_rx" || plan["stage"] == "stage=tcp_collapse", "{plan}");
        ensure!(plan["stalls_per_window"].as_f64() > Some(1.0), "{plan}");
        ensure!(plan["windows_for_halving"].as_u64() >= Some(8), "{plan}");
        Ok(())
    })
}

/// Stalls of 10 ms and more, several per second among 140,000 events, lie above p99.999.
pub(super) fn ends_early() -> Result<()> {
    namespace::run(|| {
        let directory = tempfile::tempdir()?;
        let mut command = beside(directory.path(), load::SMALL_RMEM, load::LARGE_RMEM)?;
        command.args(["--window", "4s", "--rounds", "2", "--abort-if", "p99.999>5ms"]);
        let (status, found) = result(command.args(CHANGED_FIRST))?;
        let conclusion = &found["conclusion"];
        ensure!(status.code() == Some(4) && conclusion == "ended_early", "{status}: {found}");
        let reason = found["aborted"]["text"].as_str().context("it was not ended early")?;
        ensure!(reason.contains("p99.999>5ms"), "{reason}");
        let windows = found["windows"].as_array().context("no windows")?;
        let seconds = |at: usize| windows[at]["duration_s"].as_f64().unwrap_or(f64::MAX);
        ensure!(windows.len() == 2 && seconds(1) < seconds(0), "{windows:?}");
        ensure!(rmem()? == load::SMALL_RMEM, "{}", rmem()?);
        Ok(())
    })
}

/// The peer device goes down in the window with the change.
pub(super) fn loses_link() -> Result<()> {
    namespace::run(|| {
        veth::make(1)?;
        let before = rmem()?;
        let directory = tempfile::tempdir()?;
        let mut command = experiment(directory.path(), HARMLESS)?;
        let mut running = Running::start(command.args(["--iface", veth::RECEIVER]))?;
        running.wait_for("window 2")?;
        ensure!(rmem()? != before, "not changed in window 2");
        tool::run(&format!("ip link set {} down", veth::SENDER))?;
        running.wait_for("lost its link")?;
        running.wait_for("put back")?;
        ensure!(running.child.wait()?.code() == Some(4), "a lost link is no success");
        ensure!(rmem()? == before, "{}", rmem()?);
        Ok(())
    })
}
