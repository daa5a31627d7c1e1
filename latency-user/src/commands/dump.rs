//! `dump`: asks the daemon for a recording of the last minutes.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail};
use clap::{Args, ValueHint};

use crate::{
    cli::{Console, stdout::Output, values},
    measure::daemon::{self, Request, SOCKET},
    model::exit::Exit,
};

/// What to keep.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  Keep the last five minutes, and show them:
      latency-user report \"$(latency-user dump --last 5m --reason 'p99 alert')\"")]
pub struct Arguments {
    /// How much time to keep; the ring has no more than its configuration says
    #[arg(short, long, value_parser = values::duration, default_value = "10m")]
    pub last: Duration,
    /// Why, for the log and the command of on-stall
    #[arg(short, long, value_name = "TEXT", default_value = "asked for")]
    pub reason: String,
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, default_value = SOCKET)]
    pub socket: PathBuf,
}

/// Runs the command, which prints the path of the recording.
///
/// # Errors
///
/// When no daemon answers, or it cannot write the recording.
pub fn run(args: &Arguments, console: Console) -> Result<Exit> {
    let request = Request::Dump { last_s: args.last.as_secs_f64(), reason: args.reason.clone() };
    let answer = daemon::ask(&args.socket, &request)?.answer;
    let Some(path) = answer.recording else { bail!("the daemon wrote no recording") };
    Output::new(console.out, 0).write(format!("{}\n", path.display()).as_bytes())?;
    Ok(Exit::Ok)
}
