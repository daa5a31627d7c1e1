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
    cli::{
        Console,
        new_file::NewFile,
        values::{self, ValueUnit},
    },
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
inputs. Series keep their host. Intervals are aligned to a grid of one second, or
longer where the sum would not fit in memory.

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
    /// Length of the intervals of the sum, at least: 1s to 1m
    #[arg(long, value_parser = interval, default_value = "1s")]
    pub interval: Duration,
    /// File for the merged recording
    #[arg(short, long, value_name = "FILE.hlog", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Permissions of the file, such as 644
    #[arg(long, value_name = "MODE", value_parser = values::mode, default_value = values::PRIVATE)]
    pub mode: u32,
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
    let output = NewFile::private(&args.output, args.mode, &inputs)?;
    let mut merger = Merger::new(args.interval);
    let (started, terminal) = (Instant::now(), console.err_is_terminal);
    let mut shown: Option<Instant> = None;
    // Each is read twice.
    let all = 2 * files.len() as u64;
    let show = |done: u64, shown: &mut Option<Instant>, err: &mut dyn Write| {
        let is_due = shown.map_or(started.elapsed() > PATIENCE, |at| at.elapsed() > REFRESH);
        if terminal && is_due {
            progress::line(done, all, "recordings", err)?;
            *shown = Some(Instant::now());
        }
        anyhow::Ok(())
    };
    for (done, file) in files.iter().enumerate() {
        show(done as u64, &mut shown, &mut console.err)?;
        let notes = merger.add(file, args.unit.map(Unit::from));
        if shown.is_some() && notes.as_ref().map_or(true, |notes| !notes.is_empty()) {
            progress::clear(&mut console.err)?;
        }
        for note in notes? {
            writeln!(console.err, "warning: {note}")?;
        }
    }
    let (recordings, series) = merger.size();
    let writer = Writer::of(output.handle()?, &args.output);
    let read = files.len() as u64;
    let notes = merger.write(writer, &mut |done| show(read + done, &mut shown, &mut console.err));
    if shown.is_some() {
        progress::clear(&mut console.err)?;
    }
    for note in notes? {
        writeln!(console.err, "note: {note}")?;
    }
    output.finish()?;
    writeln!(console.err, "{}: {recordings} recordings, {series} series", args.output.display())?;
    Ok(Exit::Ok)
}

/// Reads the length of an interval of the sum.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = values::duration(text)?;
    let bounds = Duration::from_secs(1)..=Duration::from_secs(60);
    match bounds.contains(&interval) && interval.subsec_nanos() == 0 {
        true => Ok(interval),
        false => Err("must be 1s to 1m, in whole seconds".into()),
    }
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
