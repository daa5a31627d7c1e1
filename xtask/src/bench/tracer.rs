//! A tracer as a process: started, waited for until it traces, ended as a user would end it.
//!
//! Owns no knowledge of any particular tracer: that is `contenders`'.

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

/// A tracer whose descriptors have not changed for so long has attached what it will.
const SETTLED: Duration = Duration::from_millis(250);

/// Longest wait for a tracer's begin (bpftrace compiles first) or end, emulated ones included.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often is looked.
const LOOK: Duration = Duration::from_millis(5);

/// A tracer at work.
pub(crate) struct Tracer {
    child: Child,
    line: String,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
    outside: softirqs::NetRx,
    inside: softirqs::NetRx,
}

/// What a tracer said, and how many NET_RX softirqs the kernel counted meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// From after its begin to before its end.
    pub(crate) least: u64,
    /// From before its begin to after its end.
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
        let outside = softirqs::net_rx()?;
        process::die_with_parent(command, libc::SIGTERM);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        Ok(Self { child, line, stdout, stderr, inside: outside.clone(), outside })
    }

    fn settle(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let mut known = 0;
        let mut since = Instant::now();
        while !programs::traces(self.id()) || since.elapsed() < SETTLED {
            if let Some(status) = self.child.try_wait()? {
                let said = self.said();
                bail!("`{}` ended with {status}: {}", self.line, last_words(&said));
            }
            ensure!(Instant::now() < end, "`{}` does not trace", self.line);
            let now = programs::descriptors(self.id());
            if now != known {
                (known, since) = (now, Instant::now());
            }
            thread::sleep(LOOK);
        }
        self.inside = softirqs::net_rx()?;
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

    /// Ends it as Ctrl-C does.
    pub(crate) fn stop(mut self) -> Result<Said> {
        let least = softirqs::net_rx()?.since(&self.inside);
        self.interrupt();
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < end, "`{}` does not end", self.line);
            thread::sleep(LOOK);
        }
        let most = softirqs::net_rx()?.since(&self.outside);
        Ok(Said { least, most, ..self.said() })
    }

    /// Sends it what Ctrl-C sends, and ends the input of one that waits for that.
    pub(crate) fn interrupt(&mut self) {
        drop(self.child.stdin.take());
        // SAFETY: signals a child that was not waited for, so its id is still its own.
        unsafe { libc::kill(self.id().cast_signed(), libc::SIGINT) };
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Result<Said> {
        self.child.wait().with_context(|| format!("wait for `{}`", self.line))?;
        Ok(self.said())
    }

    fn said(&mut self) -> Said {
        let text = |reader: Option<JoinHandle<String>>| {
            reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
        };
        let (stdout, stderr) = (text(self.stdout.take()), text(self.stderr.take()));
        Said { stdout, stderr, ..Said::default() }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // One that has ended is not signalled.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads all of `pipe`, so that it never fills up.
fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still what was said.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The last line of standard error, or of standard output.
fn last_words(said: &Said) -> &str {
    let last = |text: &'_ str| text.trim().lines().next_back().map(str::len);
    let text = if said.stderr.trim().is_empty() { &said.stdout } else { &said.stderr };
    let text = text.trim();
    last(text).map_or("it said nothing", |length| &text[text.len() - length..])
}
