//! `compare`: compares recordings from before and after a change, and tests whether stalls changed.

use std::{io::Write, path::PathBuf};

use anyhow::Result;
use clap::{Args, ValueHint};

use crate::{
    cli::{
        Console,
        stdout::Output,
        values::{CompareUnit, Format},
    },
    compare::{compare_units, sequential::LEVEL},
    model::{
        comparison::{UnitKind, Verdict},
        exit::Exit,
        failure::Failure,
        note::Note,
    },
    recording::loaded::LoadedRecording,
    views::{self, Style},
};

/// What to compare.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Two single recordings show that they differ, not what made them differ. With
several a side, each recording or host counts once, and chance is how they vary.
Exit status 4: it became worse.

Examples:
  Did a smaller receive buffer help?
      latency-user trace --duration 60s --output before.hlog
      sysctl -w net.ipv4.tcp_rmem='4096 1048576 2097152'
      latency-user trace --duration 60s --output after.hlog
      latency-user compare before.hlog after.hlog
  Is a new kernel better, on hosts that were recorded with both?
      latency-user compare --unit host --before old/*.hlog --after new/*.hlog
  In a pipeline that must fail when a new kernel is worse:
      latency-user compare old.hlog new.hlog --format json > verdict.json")]
pub struct Arguments {
    /// Recording before the change
    #[arg(value_name = "BEFORE", value_hint = ValueHint::FilePath,
          required_unless_present = "before_all", conflicts_with = "before_all",
          requires = "after")]
    pub before: Option<PathBuf>,
    /// Recording after the change
    #[arg(value_name = "AFTER", value_hint = ValueHint::FilePath)]
    pub after: Option<PathBuf>,
    /// Several recordings before the change
    #[arg(long = "before", value_name = "FILE", num_args = 1.., value_hint = ValueHint::FilePath,
          requires = "after_all")]
    pub before_all: Vec<PathBuf>,
    /// Several recordings after it
    #[arg(long = "after", value_name = "FILE", num_args = 1.., value_hint = ValueHint::FilePath,
          requires = "before_all")]
    pub after_all: Vec<PathBuf>,
    /// What counts once: a recording or a host [default: recording]. Or the unit of the values in
    /// logs of other programs [default: as their maxima say, or else ns] (repeatable)
    #[arg(long, value_enum)]
    pub unit: Vec<CompareUnit>,
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
    let values = args.unit.iter().find_map(|unit| unit.of_values());
    let (single, several) = ((&args.before, &args.after), (&args.before_all, &args.after_all));
    let kind = match single {
        (Some(_), _) if args.unit.iter().all(|unit| unit.of_values().is_some()) => {
            UnitKind::Interval
        }
        (Some(_), _) => {
            let hint = "--unit recording and --unit host need --before FILE... --after FILE...";
            return Err(Failure::new(hint).into());
        }
        _ if args.unit.contains(&CompareUnit::Host) => UnitKind::Host,
        _ => UnitKind::Recording,
    };
    let read = |single: &Option<PathBuf>, several: &[PathBuf]| {
        let paths = single.iter().chain(several);
        paths.map(|path| LoadedRecording::read_in(path, values)).collect::<Result<Vec<_>, _>>()
    };
    let before = read(single.0, several.0)?;
    let after = read(single.1, several.1)?;
    for note in before.iter().chain(&after).flat_map(|recording| &recording.totals.notes) {
        writeln!(console.err, "warning: {note}")?;
    }
    let sides = [&before, &after].map(|side| side.iter().collect::<Vec<_>>());
    let mut comparison = compare_units([&sides[0], &sides[1]], kind, LEVEL);
    if kind == UnitKind::Interval
        && matches!(comparison.verdict, Verdict::Improved | Verdict::Worse)
    {
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
