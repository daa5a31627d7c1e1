//! A tracer process: starts it, waits until it traces, and stops it with SIGINT as a user would.
//!
//! Knows nothing about particular tracers: see `tools`.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{programs, softirqs};
use crate::process;

/// A tracer has attached everything once its descriptors have not changed for this long.
const SETTLED: Duration = Duration::from_millis(250);

/// Longest wait for a tracer to start (bpftrace compiles first) or to end, even if emulated.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How often to check.
const POLL: Duration = Duration::from_millis(5);

/// A running tracer.
pub(crate) struct Tracer {
    child: Child,
    line: String,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
    /// Softirq counts before it was started.
    before_start: softirqs::NetRx,
    /// Softirq counts once it traced.
    after_start: softirqs::NetRx,
}

/// Output of a tracer, and bounds of how many NET_RX softirqs the kernel counted meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// From after it was attached to before it was stopped.
    pub(crate) least: u64,
    /// From before it was started to after it had ended.
    pub(crate) most: u64,
}

impl Tracer {
    /// Starts `command` and waits until it traces.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut tracer = Self::spawn(command)?;
        tracer.settle()?;
        Ok(tracer)
    }

    /// Starts `command`; it may not trace yet.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let line = process::line(command);
        let before_start = softirqs::net_rx()?;
        process::die_with_parent(command, libc::SIGTERM);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        let after_start = before_start.clone();
        Ok(Self { child, line, stdout, stderr, before_start, after_start })
    }

    fn settle(&mut self) -> Result<()> {
        let end = Instant::now() + TIMEOUT;
        let mut known = 0;
        let mut since = Instant::now();
        while !programs::traces(self.id()) || since.elapsed() < SETTLED {
            if let Some(status) = self.child.try_wait()? {
                let output = self.output();
                bail!("`{}` ended with {status}: {}", self.line, last_line(&output));
            }
            ensure!(Instant::now() < end, "`{}` has not started to trace", self.line);
            let now = programs::descriptors(self.id());
            if now != known {
                (known, since) = (now, Instant::now());
            }
            thread::sleep(POLL);
        }
        self.after_start = softirqs::net_rx()?;
        Ok(())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU time of all its threads.
    pub(crate) fn cpu_ms(&self) -> Result<f64> {
        let directory = Path::new("/proc").join(self.id().to_string()).join("task");
        let mut ns = 0;
        for task in fs::read_dir(&directory).with_context(|| format!("`{}` is gone", self.line))? {
            let path = task?.path().join("schedstat");
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let spent = text.split(' ').next().unwrap_or_default();
            ns += spent.parse::<u64>().with_context(|| format!("{}: {text:?}", path.display()))?;
        }
        Ok(ns as f64 / 1e6)
    }

    /// Stops it as Ctrl-C does.
    pub(crate) fn stop(mut self) -> Result<Output> {
        let least = softirqs::net_rx()?.since(&self.after_start);
        self.interrupt();
        let end = Instant::now() + TIMEOUT;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < end, "`{}` does not end", self.line);
            thread::sleep(POLL);
        }
        let most = softirqs::net_rx()?.since(&self.before_start);
        Ok(Output { least, most, ..self.output() })
    }

    /// Sends SIGINT, and closes its standard input for tracers that wait for that.
    pub(crate) fn interrupt(&mut self) {
        drop(self.child.stdin.take());
        // SAFETY: signals a child that was not waited for yet, so its id cannot have been reused.
        unsafe { libc::kill(self.id().cast_signed(), libc::SIGINT) };
    }

    /// Waits until it ends.
    pub(crate) fn wait(&mut self) -> Result<Output> {
        self.child.wait().with_context(|| format!("cannot wait for `{}`", self.line))?;
        Ok(self.output())
    }

    fn output(&mut self) -> Output {
        let text = |reader: Option<JoinHandle<String>>| {
            reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
        };
        let (stdout, stderr) = (text(self.stdout.take()), text(self.stderr.take()));
        Output { stdout, stderr, ..Output::default() }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Does nothing if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads all of `pipe`, so that it never fills up.
fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // Text that was read before an error is kept.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The last line of standard error, or of standard output if that is empty.
fn last_line(output: &Output) -> &str {
    let last = |text: &'_ str| text.trim().lines().next_back().map(str::len);
    let text = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
    let text = text.trim();
    last(text).map_or("it printed nothing", |length| &text[text.len() - length..])
}
