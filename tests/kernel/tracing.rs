//! Runs `latency-user trace` as a child process and reads its JSON.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A tracer that has attached its programs.
pub(crate) struct Tracing {
    child: Child,
    /// What it prints. Read by a thread: a tracer whose output nobody reads would stop.
    lines: Receiver<String>,
}

/// How a tracer ended.
pub(crate) struct Ended {
    /// Its exit status.
    pub(crate) status: ExitStatus,
    /// The last object that it printed.
    pub(crate) summary: Value,
}

/// A user without privileges.
const NOBODY: u32 = 65_534;

/// A copy of the program that any user may run.
pub(crate) fn for_everybody() -> Result<(tempfile::TempDir, Command)> {
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let copy = directory.path().join("latency-user");
    fs::copy(latency_user()?.get_program(), &copy)?;
    let mut command = Command::new(copy);
    command.uid(NOBODY).gid(NOBODY).stdin(Stdio::null());
    Ok((directory, command))
}

/// The program under test.
pub(crate) fn latency_user() -> Result<Command> {
    let path = env::var_os("LATENCY_USER").context("LATENCY_USER does not name the program")?;
    Ok(Command::new(path))
}

impl Tracing {
    /// Starts `latency-user trace --format json` with additional `arguments` and waits for its
    /// first interval.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self> {
        Self::spawn(arguments, Stdio::inherit())
    }

    /// As [`Self::start`], but captures standard error: see [`Self::stderr`].
    pub(crate) fn start_with_stderr(arguments: &[&str]) -> Result<Self> {
        Self::spawn(arguments, Stdio::piped())
    }

    /// Interrupts it and returns its standard error.
    pub(crate) fn stderr(mut self) -> Result<String> {
        self.signal(libc::SIGINT)?;
        // Both pipes are read to their ends, so neither can fill up.
        let mut stderr = self.child.stderr.take().context("no standard error")?;
        let message = thread::spawn(move || {
            let mut message = String::new();
            stderr.read_to_string(&mut message).map(|_| message)
        });
        self.lines.iter().for_each(drop);
        let message = message.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let status = self.child.wait()?;
        ensure!(status.success(), "latency-user ended with {status}: {message}");
        Ok(message)
    }

    fn spawn(arguments: &[&str], stderr: Stdio) -> Result<Self> {
        let interval: &[&str] =
            if arguments.contains(&"--interval") { &[] } else { &["--interval", "100ms"] };
        let mut child = latency_user()?
            .args(["trace", "--format", "json"])
            .args(interval)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .context("start latency-user")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut tracing = Self { child, lines: lines(stdout) };
        tracing.next_interval()?;
        Ok(tracing)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next object that it prints; `None` at the end.
    pub(crate) fn next_line(&mut self) -> Result<Option<Value>> {
        let Ok(line) = self.lines.recv() else { return Ok(None) };
        Ok(Some(serde_json::from_str(&line).with_context(|| format!("parse {line:?}"))?))
    }

    /// Its next interval; other objects are skipped.
    pub(crate) fn next_interval(&mut self) -> Result<Value> {
        loop {
            let line = self.next_line()?.context("it ended before the next interval")?;
            if line["kind"] == "interval" {
                return Ok(line);
            }
        }
    }

    /// Has packets polled on an RX queue of `iface` by `send` until an interval names it.
    pub(crate) fn wait_until_named(
        &mut self,
        iface: &str,
        queue: u32,
        mut send: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        for _ in 0..100 {
            send()?;
            let is_it = |row: &Value| row["iface"] == iface && row["queue"] == queue;
            if !series(&self.next_interval()?, is_it).is_empty() {
                return Ok(());
            }
        }
        anyhow::bail!("queue {queue} of {iface} was not named in 100 intervals")
    }

    /// Sends it `signal` and waits for its end.
    pub(crate) fn end(mut self, signal: i32) -> Result<Ended> {
        self.signal(signal)?;
        let last = self.lines.iter().last().unwrap_or_default();
        let status = self.child.wait()?;
        let summary = serde_json::from_str(&last).unwrap_or(Value::Null);
        Ok(Ended { status, summary })
    }

    /// Interrupts it and returns its summary.
    pub(crate) fn summary(self) -> Result<Value> {
        let ended = self.end(libc::SIGINT)?;
        ensure!(ended.status.success(), "latency-user ended with {}", ended.status);
        ensure!(ended.summary["kind"] == "summary", "no summary: {}", ended.summary);
        Ok(ended.summary)
    }

    /// Interrupts it and returns all objects printed after the first interval; the last is the
    /// summary.
    pub(crate) fn objects(mut self) -> Result<Vec<Value>> {
        self.signal(libc::SIGINT)?;
        let mut objects = Vec::new();
        while let Some(object) = self.next_line()? {
            objects.push(object);
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "latency-user ended with {status}");
        ensure!(objects.last().is_some_and(|last| last["kind"] == "summary"), "no summary");
        Ok(objects)
    }

    /// Sends it `signal`.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        // SAFETY: signals a child that was not waited for, so its id is still its own.
        let sent = unsafe { libc::kill(self.child.id() as i32, signal) };
        ensure!(sent == 0, "signal {signal}: {}", std::io::Error::last_os_error());
        Ok(())
    }
}

/// The lines of a child's output, read at once.
pub(crate) fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            // The receiver or the child is gone.
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Drop for Tracing {
    fn drop(&mut self) {
        // A failed test must not leave its tracer behind; an exited child is not signalled.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The objects of one kind.
pub(crate) fn kinds<'a>(
    objects: &'a [Value],
    kind: &'static str,
) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// The series of a summary that `is_it` picks.
pub(crate) fn series(summary: &Value, is_it: impl Fn(&Value) -> bool) -> Vec<&Value> {
    summary["series"].as_array().into_iter().flatten().filter(|row| is_it(row)).collect()
}

/// The field `name` of an object as a number.
pub(crate) fn number(object: &Value, name: &str) -> Result<u64> {
    object[name].as_u64().with_context(|| format!("{name} is not a number in {object}"))
}

/// The counts of `stage` in a summary.
pub(crate) fn counts<'a>(summary: &'a Value, stage: &str) -> Result<&'a Value> {
    let stages = summary["ledger"]["stages"].as_array().context("no ledger")?;
    stages
        .iter()
        .find(|counts| counts["stage"] == stage)
        .with_context(|| format!("no counts of {stage}"))
}

/// Waits until `holds` returns true; fails after half a minute.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds()? {
        ensure!(Instant::now() < end, "timed out waiting for: {what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
