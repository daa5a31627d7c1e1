//! `compare`: compares two recordings and tests whether stalls changed.

use std::{io::Write, path::PathBuf};

use anyhow::Result;
use clap::{Args, ValueHint};

use crate::{
    cli::{
        Console,
        stdout::Output,
        values::{Format, ValueUnit},
    },
    compare::compare,
    model::{comparison::Verdict, exit::Exit, note::Note, unit::Unit},
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
    /// Unit of the values in logs of other programs [default: as their maxima say, or else ns]
    #[arg(long, value_enum)]
    pub unit: Option<ValueUnit>,
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
    let unit = args.unit.map(Unit::from);
    let before = LoadedRecording::read_in(&args.before, unit)?;
    let after = LoadedRecording::read_in(&args.after, unit)?;
    for note in before.totals.notes.iter().chain(&after.totals.notes) {
        writeln!(console.err, "warning: {note}")?;
    }
    let mut comparison = compare(&before, &after);
    if matches!(comparison.verdict, Verdict::Improved | Verdict::Worse) {
        comparison.notes.push(Note::CauseNotShown);
    }
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
