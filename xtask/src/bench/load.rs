//! A load process in its own network namespaces, which runs one slice on each request.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{built::Built, latencies::Latencies, machine};
use crate::process;

/// A load that waits for its next slice. It exits when its standard input closes, however this
/// process ends.
pub(crate) struct Load {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    line: String,
}

/// Result of one slice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slice {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Events that the load itself delayed, if it counts them.
    pub(crate) stalls: u64,
    pub(crate) seconds: f64,
    /// CPU time of the sender.
    cpu_seconds: f64,
    /// Latencies in ns; empty for loads that do not wait for a response.
    pub(crate) latencies: Latencies,
}

impl Slice {
    /// Events per second of the sender's CPU time, which is not what others or the hypervisor took.
    /// If the kernel does not count softirqs in it, per second.
    pub(crate) fn rate(&self) -> f64 {
        let seconds = if machine::has_irq_time() { self.seconds } else { self.cpu_seconds };
        self.sent as f64 / seconds
    }

    /// Events per second of the clock.
    pub(crate) fn per_second(&self) -> f64 {
        self.sent as f64 / self.seconds
    }
}

impl Load {
    /// Starts the load with `arguments`, which begin with its name.
    pub(crate) fn start(built: &Built, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(&built.load);
        command.args(arguments).env("STALL_INJECTOR", &built.injector);
        let line = process::line(&command);
        process::die_with_parent(&mut command, libc::SIGKILL);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the output of a load was not piped")?;
        let mut load = Self { child, stdin, stdout: BufReader::new(stdout), line };
        // Warm its caches, and check that it works.
        load.slice(Duration::from_millis(50), None)?;
        Ok(load)
    }

    /// Runs for `duration`, at `rate` events a second or as fast as possible.
    pub(crate) fn slice(&mut self, duration: Duration, rate: Option<u64>) -> Result<Slice> {
        self.begin(duration, rate)?;
        self.end()
    }

    /// Begins a slice, which [`Self::end`] waits for.
    pub(crate) fn begin(&mut self, duration: Duration, rate: Option<u64>) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the load has ended")?;
        let rate = rate.map_or(String::new(), |rate| format!(" {rate}"));
        writeln!(stdin, "{}{rate}", duration.as_millis())
            .with_context(|| format!("`{}` has ended", self.line))
    }

    /// Waits for the end of the slice.
    pub(crate) fn end(&mut self) -> Result<Slice> {
        let mut text = String::new();
        self.stdout.read_line(&mut text).with_context(|| format!("read from `{}`", self.line))?;
        ensure!(!text.is_empty(), "`{}` has ended: see its output above", self.line);
        parse(&text)
            .with_context(|| format!("cannot parse the output of `{}`: {text:?}", self.line))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // Killing is safe: no namespace, device or program outlives it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(text: &str) -> Result<Slice> {
    let value: Value = serde_json::from_str(text)?;
    let number = |name: &str| value[name].as_u64().with_context(|| format!("no {name}"));
    let pairs = value["histogram"].as_array().into_iter().flatten();
    Ok(Slice {
        sent: number("sent")?,
        received: number("received")?,
        stalls: value["stalls"].as_u64().unwrap_or(0),
        seconds: value["seconds"].as_f64().context("no seconds")?,
        cpu_seconds: value["cpu_seconds"].as_f64().context("no cpu_seconds")?,
        latencies: Latencies::new(
            pairs.filter_map(|pair| Some((pair[0].as_u64()?, pair[1].as_u64()?))),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_parsed_with_and_without_latencies() {
        let plain =
            parse(r#"{"sent":100,"received":97,"seconds":0.5,"cpu_seconds":0.25}"#).unwrap();
        assert_eq!((plain.per_second(), plain.received), (200.0, 97));
        assert!([200.0, 400.0].contains(&plain.rate()));
        let timed = r#"{"sent":3,"received":3,"seconds":1,"cpu_seconds":1,
            "histogram":[[100,2],[200,1]]}"#;
        assert_eq!(parse(timed).unwrap().latencies, Latencies::new([(100, 2), (200, 1)]));
        assert!(parse("{}").is_err());
    }
}
