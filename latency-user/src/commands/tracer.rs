//! Who traces for a command: this process, or a daemon that does already.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use clap::{Args, ValueHint};

use crate::{
    kernel::single_instance::SingleInstance,
    measure::{
        MeasureConfig,
        daemon::{self, Connection, Request, SOCKET},
    },
    model::failure::Failure,
};

/// How to get along with a daemon.
#[derive(Args, Clone, Debug)]
pub struct DaemonArguments {
    /// Pause the daemon (`serve`) that traces here, instead of following it
    #[arg(long, help_heading = "Daemon")]
    pub take_over: bool,
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", help_heading = "Daemon", value_hint = ValueHint::FilePath,
          default_value = SOCKET)]
    pub socket: PathBuf,
}

/// Who traces.
pub enum Tracer {
    /// This process, alone; a daemon is paused as long as the connection lasts.
    Here {
        /// Keeps others from tracing.
        _instance: SingleInstance,
        /// To a daemon that pauses.
        _paused: Option<Box<Connection>>,
    },
    /// The daemon with this control socket.
    Daemon(PathBuf),
}

impl Tracer {
    /// The daemon, if there is one that traces what `config` asks for by the options that are
    /// `given`; or else this process.
    ///
    /// # Errors
    ///
    /// When the daemon traces something else, another process traces, or privileges are missing,
    /// which `check` tells.
    pub fn choose(
        config: &MeasureConfig,
        given: impl Fn(&str) -> bool,
        arguments: &DaemonArguments,
        check: impl FnOnce() -> Result<(), Failure>,
        err: &mut dyn Write,
    ) -> Result<Self> {
        let socket = &arguments.socket;
        if !daemon::is_there(socket) {
            check()?;
            return Ok(Self::Here { _instance: SingleInstance::claim()?, _paused: None });
        }
        if arguments.take_over {
            check()?;
            let paused = daemon::ask(socket, &Request::Pause)?;
            let _ = writeln!(err, "note: the daemon pauses meanwhile");
            let _instance = SingleInstance::claim()?;
            return Ok(Self::Here { _instance, _paused: Some(Box::new(paused)) });
        }
        let pid = follow(config, given, socket)?;
        let _ = writeln!(err, "note: follows the daemon, process {pid}, which traces already");
        Ok(Self::Daemon(socket.clone()))
    }

    /// The control socket of the daemon that traces.
    pub fn daemon(&self) -> Option<PathBuf> {
        match self {
            Self::Here { .. } => None,
            Self::Daemon(socket) => Some(socket.clone()),
        }
    }
}

/// Checks that the daemon traces what is asked for, and returns its process.
fn follow(config: &MeasureConfig, given: impl Fn(&str) -> bool, socket: &Path) -> Result<u32> {
    let answer = daemon::ask(socket, &Request::Status)?.answer;
    let mut differences = answer.differences(&config.tracer, &given);
    let interval = Duration::try_from_secs_f64(answer.interval_s.unwrap_or(0.0));
    if let Ok(interval) = interval
        && interval > config.interval
        && given("--interval")
    {
        let time = humantime::format_duration;
        differences.push(format!("--interval {}, not {}", time(interval), time(config.interval)));
    }
    if differences.is_empty() {
        return Ok(answer.pid.unwrap_or_default());
    }
    let what = format!("a daemon traces here already, with {}", differences.join("; "));
    Err(Failure::new(what)
        .hint("leave these options to it, or pause it meanwhile: --take-over")
        .into())
}
