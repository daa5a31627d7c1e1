//! A load as a process, in network namespaces of its own, that runs slice by slice.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Built, latencies::Latencies};
use crate::process;

/// A load that waits for its next slice. It ends with its standard input, whatever becomes of
/// this process.
pub(crate) struct Load {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    line: String,
}

/// What happened in a slice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slice {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) seconds: f64,
    /// Latencies in ns, of loads that wait for a response.
    pub(crate) latencies: Latencies,
}

impl Slice {
    pub(crate) fn rate(&self) -> f64 {
        self.sent as f64 / self.seconds
    }
}

impl Load {
    /// Starts the load that `words` name.
    pub(crate) fn start(built: &Built, words: &[&str]) -> Result<Self> {
        let mut command = Command::new(&built.load);
        command.args(words).env("STALL_INJECTOR", &built.injector);
        let line = process::line(&command);
        process::die_with_parent(&mut command, libc::SIGKILL);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the output of a load was not piped")?;
        let mut load = Self { child, stdin, stdout: BufReader::new(stdout), line };
        // Warms its caches, and shows that it works.
        load.slice(Duration::from_millis(50), None)?;
        Ok(load)
    }

    /// Runs for `duration`, at `rate` events a second or as fast as it goes.
    pub(crate) fn slice(&mut self, duration: Duration, rate: Option<u64>) -> Result<Slice> {
        let stdin = self.stdin.as_mut().context("the load has ended")?;
        let rate = rate.map_or(String::new(), |rate| format!(" {rate}"));
        writeln!(stdin, "{}{rate}", duration.as_millis())
            .with_context(|| format!("`{}` has ended", self.line))?;
        let mut text = String::new();
        self.stdout.read_line(&mut text).with_context(|| format!("read from `{}`", self.line))?;
        ensure!(!text.is_empty(), "`{}` has ended: its words stand above", self.line);
        parse(&text).with_context(|| format!("`{}` said {text:?}", self.line))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It has no namespace, device or program that outlives it.
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
        seconds: value["seconds"].as_f64().context("no seconds")?,
        latencies: Latencies::new(
            pairs.filter_map(|pair| Some((pair[0].as_u64()?, pair[1].as_u64()?))),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read_with_and_without_latencies() {
        let plain = parse(r#"{"sent":100,"received":97,"seconds":0.5}"#).unwrap();
        assert_eq!((plain.rate(), plain.received), (200.0, 97));
        let timed = r#"{"sent":3,"received":3,"seconds":1,"histogram":[[100,2],[200,1]]}"#;
        assert_eq!(parse(timed).unwrap().latencies, Latencies::new([(100, 2), (200, 1)]));
        assert!(parse("{}").is_err());
    }
}
