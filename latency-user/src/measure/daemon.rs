//! What a daemon can be asked for through its control socket.
//!
//! A client sends one request, a JSON object on a line. The answer is an object on a line, too.
//! After that of [`Request::Follow`] comes a recording without an end, until the client sends the
//! line [`END`]; [`Request::Pause`] lasts until the client closes the socket.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    collect::config::Config,
    model::{failure::Failure, run::Run},
};

/// The control socket, unless another is given.
pub const SOCKET: &str = "/run/latency-user/control.sock";

/// The line with which a client that follows asks for the end.
pub const END: &str = "end";

/// A daemon that does not answer within this time is stopped, or overloaded.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client can ask for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// The intervals from now on.
    Follow,
    /// Not to trace until the client has gone.
    Pause,
    /// A recording of the last seconds.
    Dump {
        /// Seconds.
        last_s: f64,
        /// Why.
        reason: String,
    },
    /// What is traced.
    Status,
}

/// The answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Why the request was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// What is traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// Length of its intervals, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<f64>,
    /// Minimum duration of a `tcp_collapse` call that is reported, ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collapse_threshold_ns: Option<u64>,
    /// The recording that was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<PathBuf>,
}

/// A connection to a daemon that has answered.
pub struct Connection {
    /// The answer.
    pub answer: Answer,
    /// What follows it.
    pub stream: BufReader<UnixStream>,
}

/// Whether a daemon listens at `socket`.
pub fn is_there(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// Asks the daemon at `socket`.
///
/// # Errors
///
/// When there is none, it does not answer, or it refuses.
pub fn ask(socket: &Path, request: &Request) -> Result<Connection> {
    let place = || format!("ask the daemon at {}", socket.display());
    let mut stream = UnixStream::connect(socket).map_err(|error| {
        let what = format!("no daemon answers at {}: {error}", socket.display());
        Failure::new(what).hint("`latency-user serve` starts one; --socket names another place")
    })?;
    // A recording takes its time to be written.
    let patience = match request {
        Request::Dump { .. } => PATIENCE * 30,
        _ => PATIENCE,
    };
    stream.set_read_timeout(Some(patience)).with_context(place)?;
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    stream.write_all(&text).with_context(place)?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let read = stream.read_line(&mut line);
    let answer: Answer = match read {
        Ok(length) if length > 0 => serde_json::from_str(&line).with_context(place)?,
        Ok(_) => return Err(silent(socket, "it closed the connection")),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(silent(socket, "it does not answer"));
        }
        Err(error) => return Err(error).with_context(place),
    };
    stream.get_ref().set_read_timeout(None).with_context(place)?;
    if let Some(error) = answer.error {
        return Err(Failure::new(format!("the daemon refuses: {error}")).into());
    }
    Ok(Connection { answer, stream })
}

fn silent(socket: &Path, what: &str) -> anyhow::Error {
    Failure::new(format!("the daemon at {}: {what}", socket.display()))
        .hint("its log says more: journalctl -u latency-user")
        .into()
}

impl Answer {
    /// In what the daemon traces differently from `wanted`, in the words of the options. Of those
    /// with a default, only the ones that are `given` count.
    pub fn differences(&self, wanted: &Config, given: impl Fn(&str) -> bool) -> Vec<String> {
        let Some(run) = &self.run else { return vec!["what it traces is not known".into()] };
        let time = |ns: u64| humantime::format_duration(Duration::from_nanos(ns)).to_string();
        let collapse = self.collapse_threshold_ns.unwrap_or(wanted.collapse_threshold_ns);
        let (is, asked) = (&run.sampling, wanted);
        let options = [
            ("--threshold", time(run.threshold_ns), time(wanted.threshold_ns)),
            ("--collapse-threshold", time(collapse), time(wanted.collapse_threshold_ns)),
            ("--sample-hz", is.hz.to_string(), asked.sample_hz.to_string()),
            ("--sample-clock", is.clock.name().into(), asked.sample_clock.name().into()),
            ("--sample-when", is.when.name().into(), asked.sample_when.name().into()),
        ];
        let mut differences: Vec<String> = options
            .into_iter()
            .filter(|(option, is, asked)| is != asked && given(option))
            .map(|(option, is, asked)| format!("{option} {is}, not {asked}"))
            .collect();
        if run.transport != wanted.transport {
            differences.push("--transport maps".into());
        }
        let is_timed = |stage| run.probes.iter().any(|probe| probe.stage == stage);
        let missing: Vec<&str> = wanted
            .stages
            .iter()
            .filter(|stage| !is_timed(**stage))
            .map(|stage| stage.name())
            .collect();
        if !missing.is_empty() {
            differences.push(format!("not the stages {}", missing.join(", ")));
        }
        if let Some(method) = wanted.forced_method()
            && run.probes.iter().any(|probe| probe.method.is_some_and(|used| used != method))
        {
            differences.push(format!("not everything by --probes {}", method.name()));
        }
        differences
    }
}
