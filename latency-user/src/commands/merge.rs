//! `merge`: merges recordings into one.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::{Args, ValueHint};

use crate::{
    cli::{Console, new_file::NewFile, values::ValueUnit},
    model::{exit::Exit, failure::Failure, unit::Unit},
    recording::{merge::Merger, writer::Writer},
    views::progress,
};

/// Time without a progress bar.
const PATIENCE: Duration = Duration::from_secs(2);

/// Time between two updates of the bar.
const REFRESH: Duration = Duration::from_millis(100);

/// What to merge, and the output file.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Counts are added bucket by bucket: merged quantiles are as exact as those of the
inputs. Series keep their host. The timeline is lost.

Examples:
  One recording of a fleet:
      latency-user merge web-*.hlog --output fleet.hlog
  More files than a command line holds:
      find runs -name '*.hlog' | latency-user merge --files-from - \\
          --output all.hlog")]
pub struct Arguments {
    /// Recordings, or interval logs of other programs
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present = "files_from")]
    pub files: Vec<PathBuf>,
    /// Read further file names from LIST, one a line (-: stdin)
    #[arg(long, value_name = "LIST", value_hint = ValueHint::FilePath)]
    pub files_from: Option<PathBuf>,
    /// Unit of the values in logs of other programs [default: as their maxima say, or else ns]
    #[arg(long, value_enum)]
    pub unit: Option<ValueUnit>,
    /// File for the merged recording
    #[arg(short, long, value_name = "FILE.hlog", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
}

/// Runs the command.
///
/// # Errors
///
/// When a recording cannot be read, thresholds differ, or the result cannot be written. The output
/// is created only after all recordings were read.
pub fn run(args: &Arguments, mut console: Console) -> Result<Exit> {
    let mut files = args.files.clone();
    if let Some(list) = &args.files_from {
        files.extend(listed(list)?);
    }
    if files.is_empty() {
        return Err(Failure::new("there is no recording to merge").into());
    }
    let mut inputs = files.clone();
    inputs.extend(args.files_from.clone());
    let output = NewFile::create(&args.output, &inputs)?;
    let mut merger = Merger::default();
    let started = Instant::now();
    let mut shown: Option<Instant> = None;
    for (done, file) in files.iter().enumerate() {
        let is_due = shown.map_or(started.elapsed() > PATIENCE, |at| at.elapsed() > REFRESH);
        if console.err_is_terminal && is_due {
            progress::line(done as u64, files.len() as u64, "recordings", &mut console.err)?;
            shown = Some(Instant::now());
        }
        let notes = merger.add(file, args.unit.map(Unit::from));
        if shown.is_some() && notes.as_ref().map_or(true, |notes| !notes.is_empty()) {
            progress::clear(&mut console.err)?;
        }
        for note in notes? {
            writeln!(console.err, "warning: {note}")?;
        }
    }
    if shown.is_some() {
        progress::clear(&mut console.err)?;
    }
    let (recordings, series) = merger.size();
    merger.write(Writer::of(output.handle()?, &args.output))?;
    output.finish()?;
    writeln!(console.err, "{}: {recordings} recordings, {series} series", args.output.display())?;
    Ok(Exit::Ok)
}

fn listed(list: &Path) -> Result<Vec<PathBuf>, Failure> {
    let text = match list.to_str() {
        Some("-") => std::io::read_to_string(std::io::stdin()),
        _ => fs::read_to_string(list),
    };
    let text = text.map_err(|error| {
        Failure::new(format!("cannot read the list of files {}: {error}", list.display()))
    })?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect())
}
