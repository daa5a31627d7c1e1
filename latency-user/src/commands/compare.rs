//! `compare`: compares two recordings and tests whether stalls changed.

use std::{io::Write, path::PathBuf};

use anyhow::Result;
use clap::{Args, ValueHint};

use crate::{
    cli::{Console, stdout::Output, values::Format},
    compare::compare,
    model::{comparison::Verdict, exit::Exit},
    recording::loaded::LoadedRecording,
    views::{self, Style},
};

/// What to compare.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Exit status 4: it became worse.

Examples:
  Did a smaller receive buffer help?
      latency-user trace --duration 60s --output before.hlog
      sysctl -w net.ipv4.tcp_rmem='4096 1048576 2097152'
      latency-user trace --duration 60s --output after.hlog
      latency-user compare before.hlog after.hlog
  In a pipeline that must fail when a new kernel is worse:
      latency-user compare old.hlog new.hlog --format json > verdict.json")]
pub struct Arguments {
    /// Recording before the change
    #[arg(value_name = "BEFORE", value_hint = ValueHint::FilePath)]
    pub before: PathBuf,
    /// Recording after the change
    #[arg(value_name = "AFTER", value_hint = ValueHint::FilePath)]
    pub after: PathBuf,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: Format,
}

/// Runs the command: [`Exit::Found`] when stalls became worse.
///
/// # Errors
///
/// When a recording cannot be read.
pub fn run(args: &Arguments, mut console: Console) -> Result<Exit> {
    let before = LoadedRecording::read(&args.before)?;
    let after = LoadedRecording::read(&args.after)?;
    for note in before.totals.notes.iter().chain(&after.totals.notes) {
        writeln!(console.err, "warning: {note}")?;
    }
    let comparison = compare(&before, &after);
    let mut text = Vec::new();
    match args.format {
        Format::Table => {
            let style = Style { colour: console.colour, width: Style::MAX_WIDTH };
            views::comparison::comparison(&comparison, style, &mut text)?;
        }
        Format::Json => views::json::comparison(&comparison, &mut text)?,
    }
    Output::new(console.out, 0).write(&text)?;
    Ok(if comparison.verdict == Verdict::Worse { Exit::Found } else { Exit::Ok })
}
