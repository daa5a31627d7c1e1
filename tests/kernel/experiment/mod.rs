//! Experiments on real settings in private network namespaces: their conclusions, and that the
//! original value is restored however they end.

mod deaths;
mod settings;
pub(crate) mod tunings;
mod verdicts;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    suite::{Where, trial},
    tracing::latency_user,
};

pub(crate) const RMEM: &str = "/proc/sys/net/ipv4/tcp_rmem";
/// A setting that affects no traffic of these tests.
pub(crate) const HARMLESS: &str = "sysctl:net.ipv4.tcp_rmem=4096 131072 4194304";

/// A seed whose first pair of windows starts with the change.
pub(crate) const CHANGED_FIRST: [&str; 2] = ["--seed", "0"];

/// The tests of these files.
pub(crate) fn trials() -> Vec<Trial> {
    let host = |name, tools: &[&str], body| trial(name, Where::Host, tools, body);
    let strace: &[&str] = &["ip", "strace"];
    [
        host("experiment::the_case_study_improves_and_is_kept", &["ip"], verdicts::improves),
        host("experiment::a_worse_setting_is_restored", &["ip"], verdicts::worsens),
        host("experiment::the_same_value_shows_no_difference", &["ip"], verdicts::same),
        host("experiment::an_abort_rule_ends_a_window_early", &["ip"], verdicts::ends_early),
        host("experiment::much_worse_ends_early_and_is_worse", &["ip"], verdicts::much_worse),
        host("experiment::a_plan_counts_windows", &["ip"], verdicts::plans),
        host("experiment::a_lost_link_ends_a_window", &["ip", "ethtool"], verdicts::loses_link),
        host("experiment::signals_restore_the_setting", &["ip"], deaths::signals),
        host("experiment::a_kill_during_a_write_restores_the_setting", strace, deaths::in_writes),
        host("experiment::a_panic_restores_the_setting", strace, deaths::panic),
        host("experiment::a_stopped_experiment_is_interrupted", &["ip"], deaths::stopped),
        host("experiment::a_dead_watchdog_is_replaced", &["ip"], deaths::watchdog),
        host("experiment::torn_journals_change_nothing", strace, deaths::torn),
        host("experiment::undo_works_without_a_watchdog", &["ip"], deaths::undo),
        host("experiment::a_foreign_change_is_kept", &["ip"], deaths::foreign),
        host(
            "experiment::settings_match_other_tools",
            &["ip", "ethtool", "sysctl"],
            settings::tunings,
        ),
        host("experiment::what_moves_with_a_setting_is_put_back", &["ip"], settings::followers),
        host("experiment::values_out_of_bounds_are_refused", &["ip"], settings::bounds),
        host("experiment::other_namespaces_by_pid_and_name", &["ip"], settings::elsewhere),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// An experiment with its state and recordings in `directory`.
pub(crate) fn experiment(directory: &Path, setting: &str) -> Result<Command> {
    let mut command = latency_user()?;
    command.args(["experiment", "--format", "json", "--set", setting]);
    command.arg("--state").arg(directory.join("state")).arg("--output").arg(directory.join("out"));
    Ok(command)
}

/// Runs an experiment to its end and returns its status and result.
pub(crate) fn result(command: &mut Command) -> Result<(ExitStatus, Value)> {
    let output = command.stdin(Stdio::null()).output().context("run an experiment")?;
    let message = String::from_utf8_lossy(&output.stderr);
    let found = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}: {message}", output.status))?;
    Ok((output.status, found))
}

pub(crate) fn rmem() -> Result<String> {
    Ok(fs::read_to_string(RMEM)?.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A running experiment, watched through its progress messages.
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: BufReader<ChildStderr>,
}

impl Running {
    /// Starts an experiment with short windows: the lead-in, one with the change, one without.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        Self::start_with(command, Stdio::null())
    }

    /// As [`Self::start`], with its result going to `stdout`.
    pub(crate) fn start_with(command: &mut Command, stdout: Stdio) -> Result<Self> {
        let command = command
            .args(["--window", "1s", "--settle", "200ms", "--rounds", "1"])
            .args(CHANGED_FIRST);
        Self::spawn(command, stdout)
    }

    pub(crate) fn spawn(command: &mut Command, stdout: Stdio) -> Result<Self> {
        let mut child =
            command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stderr.take().context("no standard error")?);
        Ok(Self { child, lines })
    }

    /// Waits until it prints a line with `word`.
    pub(crate) fn wait_for(&mut self, word: &str) -> Result<()> {
        let mut message = String::new();
        while !message.lines().last().unwrap_or_default().contains(word) {
            ensure!(self.lines.read_line(&mut message)? > 0, "{word:?} never appeared: {message}");
        }
        Ok(())
    }

    /// What it prints until it ends.
    pub(crate) fn rest(&mut self) -> Result<String> {
        let mut message = String::new();
        self.lines.read_to_string(&mut message)?;
        Ok(message)
    }

    /// Waits until it ends with a conclusion; without load, any conclusion will do.
    pub(crate) fn end(mut self) -> Result<()> {
        let message = self.rest()?;
        let status = self.child.wait()?;
        ensure!(matches!(status.code(), Some(0 | 4)), "{status}: {message}");
        Ok(())
    }

    /// Its only child: the watchdog.
    pub(crate) fn only_child(&self) -> Result<i32> {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        let children = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        children.trim().parse().with_context(|| format!("expected one child, found {children:?}"))
    }

    /// Sends it `signal`.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        kill(self.child.id() as i32, signal)
    }
}

/// Sends `signal` to a child or a grandchild.
pub(crate) fn kill(process: i32, signal: i32) -> Result<()> {
    // SAFETY: touches no memory; the process is a child or grandchild that was not waited for.
    let sent = unsafe { libc::kill(process, signal) };
    ensure!(sent == 0, "signal {signal}: {}", std::io::Error::last_os_error());
    Ok(())
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Names of the journal files.
pub(crate) fn journals(directory: &Path) -> Vec<String> {
    let entries = directory.join("state").read_dir().into_iter().flatten().filter_map(Result::ok);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name != "lock").collect()
}
