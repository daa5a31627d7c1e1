//! Conclusions of experiments under the case study's load, and what ends their windows early.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use latency_tests::{load, namespace, tool, veth};

use super::{HARMLESS, RMEM, Running, experiment, result, rmem};

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

/// How often a conclusion is sought: stalls that a hypervisor makes in a window, by taking the CPU,
/// can hide an effect, and then the same experiment is tried again.
const TRIES: usize = 3;

/// Improves at the default threshold. With `--keep-if improved` the change is kept once a further
/// window has confirmed it.
pub(super) fn improves() -> Result<()> {
    let mut errors = Vec::new();
    for _ in 0..TRIES {
        match improves_once() {
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
        command.args(["--window", "5s", "--rounds", "2", "--keep-if", "improved"]);
        let (status, found) = result(&mut command)?;
        ensure!(status.success() && found["conclusion"] == "improved", "{status}: {found}");
        ensure!(found["comparison"]["weak"] == false, "the loads differ: {found}");
        ensure!(found["culprits"][0]["function"] == "tcp_collapse", "{}", found["culprits"]);
        let stalls = |at: usize| found["windows"][at]["stalls"].as_u64().unwrap_or(0);
        ensure!([0, 2, 4].iter().all(|at| stalls(*at) > stalls(1)), "{}", found["windows"]);
        ensure!(found["setting"] == "kept" && rmem()? == load::SMALL_RMEM, "{found}");
        ensure!(directory.path().join("out/confirmation.hlog").exists(), "no further window");
        let page = fs::read_to_string(directory.path().join("out/report.html"))?;
        for word in ["tcp_collapse", load::SMALL_RMEM, "Stability confirmed"] {
            ensure!(page.contains(word), "the page lacks {word:?}");
        }
        Ok(())
    })
}

/// With `--keep-if improved` nothing else is kept; a worse result has its own exit status.
pub(super) fn worsens() -> Result<()> {
    namespace::run(|| {
        let directory = tempfile::tempdir()?;
        let mut command = beside(directory.path(), load::SMALL_RMEM, load::LARGE_RMEM)?;
        command.args(["--window", "4s", "--rounds", "1", "--keep-if", "improved"]);
        let (status, found) = result(&mut command)?;
        ensure!(status.code() == Some(4) && found["conclusion"] == "worse", "{status}: {found}");
        ensure!(found["aborted"].is_null(), "it was ended early: {found}");
        ensure!(found["setting"] == "original" && rmem()? == load::SMALL_RMEM, "{}", rmem()?);
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
        command.args(["--window", "3s", "--rounds", "2", "--keep-if", "improved"]);
        let (status, found) = result(&mut command)?;
        ensure!(status.success() && found["conclusion"] == "no_difference_shown", "{found}");
        ensure!(found["culprits"][0]["function"] == "tcp_collapse", "no stalls: {found}");
        ensure!(found["setting"] == "original" && rmem()? == load::LARGE_RMEM, "{}", rmem()?);
        Ok(())
    })
}

/// Stalls of 10 ms and more, several per second among 140,000 events, lie above p99.999.
pub(super) fn ends_early() -> Result<()> {
    namespace::run(|| {
        let directory = tempfile::tempdir()?;
        let mut command = beside(directory.path(), load::SMALL_RMEM, load::LARGE_RMEM)?;
        command.args(["--window", "4s", "--rounds", "2", "--abort-if", "p99.999>5ms"]);
        let (status, found) = result(&mut command)?;
        ensure!(status.code() == Some(4) && found["conclusion"] == "worse", "{status}: {found}");
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
        ensure!(running.child.wait()?.code() == Some(4), "a lost link is worse");
        ensure!(rmem()? == before, "{}", rmem()?);
        Ok(())
    })
}
