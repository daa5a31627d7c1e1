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
    cli::Console,
    model::{exit::Exit, failure::Failure},
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
    check_output(&args.output, &files)?;
    let mut merger = Merger::default();
    let started = Instant::now();
    let mut shown: Option<Instant> = None;
    for (done, file) in files.iter().enumerate() {
        let is_due = shown.map_or(started.elapsed() > PATIENCE, |at| at.elapsed() > REFRESH);
        if console.err_is_terminal && is_due {
            progress::line(done as u64, files.len() as u64, "recordings", &mut console.err)?;
            shown = Some(Instant::now());
        }
        let notes = merger.add(file);
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
    merger.write(Writer::create(&args.output)?)?;
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

/// The output must not overwrite one of the inputs.
fn check_output(output: &Path, files: &[PathBuf]) -> Result<(), Failure> {
    let Ok(target) = output.canonicalize() else { return Ok(()) };
    if target.is_file() && files.iter().any(|f| f.canonicalize().is_ok_and(|f| f == target)) {
        let what = format!("{} is both an input and the output", output.display());
        return Err(Failure::new(what).hint("write the result to another file"));
    }
    Ok(())
}
