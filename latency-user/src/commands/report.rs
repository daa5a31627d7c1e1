//! `report`: shows recordings.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum, ValueHint};
use latency_common::stage::Stage;

use crate::{
    cli::{
        Console,
        masked::{Allowed, Masked},
        new_file::NewFile,
        stdout::Output,
        values::ValueUnit,
    },
    compare::compare,
    model::{
        comparison::Comparison, distribution::Distribution, exit::Exit, experiment::Experiment,
        failure::Failure, note::Note, run::DEFAULT_THRESHOLD_NS, series::SeriesKey,
        summary::Summary, unit::Unit,
    },
    recording::loaded::{LoadedRecording, RecordingTotals},
    views::{self, Style},
};

/// What to show, and how.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  The result of a run, as shown at its end:
      latency-user report before.hlog
  All queues of eth0 as a percentile distribution, for HdrHistogram's plotters:
      latency-user report before.hlog --format hgrm \\
          --series 'stage=napi_poll;if=eth0' > eth0.hgrm
  A flame graph of the stalls alone:
      latency-user report before.hlog --format folded \\
          | flamegraph.pl > stalls.svg
  A page to attach to an incident; with two recordings, before and after:
      latency-user report before.hlog after.hlog --format html \\
          --output page.html
  Numbers of many runs for a spreadsheet:
      latency-user report *.hlog --format csv --output runs.csv")]
pub struct Arguments {
    /// Recordings, or interval logs of other programs; - is the standard input
    #[arg(value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: ReportFormat,
    /// Only series whose tag has all these parts, such as stage=napi_poll;if=eth0 (repeatable).
    /// hgrm adds them up [default for hgrm: net_rx of all CPUs]
    #[arg(long, value_name = "PARTS")]
    pub series: Vec<String>,
    /// Unit of the values in logs of other programs [default: as their maxima say, or else ns]
    #[arg(long, value_enum)]
    pub unit: Option<ValueUnit>,
    /// Write to this file instead of stdout
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
}

/// How recordings are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people
    Table,
    /// For programs: one object a line
    Json,
    /// For spreadsheets: one line a series
    Csv,
    /// HdrHistogram's percentile distribution, in microseconds
    Hgrm,
    /// Stacks of stalls, for flame graphs
    Folded,
    /// A self-contained page: of one recording, or of one before and one after
    Html,
}

/// Runs the command: [`Exit::Failed`] when a ledger in the recordings does not balance.
///
/// # Errors
///
/// When a recording cannot be read, or the output cannot be written.
pub fn run(args: &Arguments, mut console: Console) -> Result<Exit> {
    // Fail on a wrong name before reading anything.
    let create = |path: &PathBuf| NewFile::create(path, &args.files);
    let Some(file) = args.output.as_ref().map(create).transpose()? else {
        let out = std::mem::replace(&mut console.out, Box::new(io::sink()));
        // Only tables have colours of our own; what else looks like one is the file's.
        let mut output = match args.format {
            ReportFormat::Table => Output::new(out, 0),
            _ => Output::new(Box::new(Masked::new(out, Allowed::Nothing)), 0),
        };
        return show(args, console, &mut |text| {
            output.write(text)?;
            Ok(!output.is_closed())
        });
    };
    console.colour = false;
    let mut file = Masked::new(file, Allowed::Nothing);
    let path = args.output.as_deref().unwrap_or(Path::new("")).display();
    let exit = show(args, console, &mut |text| {
        file.write_all(text).with_context(|| format!("cannot write {path}"))?;
        Ok(true)
    })?;
    file.into_inner().finish()?;
    Ok(exit)
}

/// Passes the text to `write`, in pieces, until that returns false.
fn show(
    args: &Arguments,
    mut console: Console,
    write: &mut dyn FnMut(&[u8]) -> Result<bool>,
) -> Result<Exit> {
    if args.format == ReportFormat::Html {
        return html(args, console, write);
    }
    if args.format == ReportFormat::Hgrm && args.files.len() > 1 {
        return Err(Failure::usage("hgrm shows one recording").hint("merge them first").into());
    }
    let unit = args.unit.map(Unit::from);
    let style = Style { colour: console.colour, width: Style::MAX_WIDTH };
    let mut text = Vec::new();
    let mut unbalanced = false;
    let mut stacks: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    if args.format == ReportFormat::Csv {
        views::csv::head(&mut text)?;
    }
    for (at, path) in args.files.iter().enumerate() {
        let mut recording = RecordingTotals::read_in(path, unit)?;
        for note in &recording.notes {
            writeln!(console.err, "warning: {note}")?;
        }
        recording.select(&args.series);
        if !args.series.is_empty() && recording.totals.series.is_empty() {
            let what = format!("{} has no series with these parts", path.display());
            let hint = "--format csv without --series lists them";
            return Err(Failure::new(what).hint(hint).into());
        }
        unbalanced |= recording.end.as_ref().is_some_and(|end| !end.ledger.balanced);
        match args.format {
            ReportFormat::Table => {
                if at > 0 {
                    text.push(b'\n');
                }
                if args.files.len() > 1 {
                    writeln!(text, "{}:", views::printable(&path.display().to_string()))?;
                }
                table(&recording, style, &mut text)?;
            }
            ReportFormat::Json => json(&recording, &mut text)?,
            ReportFormat::Csv => {
                let series = recording.summary().map(|(_, series)| series).unwrap_or_default();
                let name = path.display().to_string();
                views::csv::series(&name, &series, &foreign(&recording), &mut text)?;
            }
            ReportFormat::Hgrm => {
                let sum = sum(&recording, args.series.is_empty())?;
                views::hgrm::distribution(&sum, &mut text)?;
            }
            ReportFormat::Html => unreachable!("pages are written above"),
            ReportFormat::Folded => {
                for stack in recording.totals.stalls.stacks() {
                    *stacks.entry(stack.frames).or_default() += stack.count;
                }
            }
        }
        if !write(&text)? {
            break;
        }
        text.clear();
    }
    if args.format == ReportFormat::Folded {
        if stacks.is_empty() {
            writeln!(console.err, "warning: {}", Note::NoSamples)?;
        }
        views::folded::stacks(stacks.iter().map(|(f, n)| (f.as_slice(), *n)), &mut text)?;
        write(&text)?;
    }
    Ok(if unbalanced { Exit::Failed } else { Exit::Ok })
}

fn html(
    args: &Arguments,
    mut console: Console,
    write: &mut dyn FnMut(&[u8]) -> Result<bool>,
) -> Result<Exit> {
    if args.files.len() > 2 {
        let failure = Failure::usage("a page shows one or two recordings");
        return Err(failure.hint("merge them first").into());
    }
    let unit = args.unit.map(Unit::from);
    let mut recordings = Vec::new();
    for path in &args.files {
        let recording = LoadedRecording::read_in(path, unit)?;
        for note in &recording.totals.notes {
            writeln!(console.err, "warning: {note}")?;
        }
        recordings.push(recording);
    }
    let comparison = match &recordings[..] {
        [before, after] => Some(compare(before, after)),
        _ => None,
    };
    let recordings: Vec<&LoadedRecording> = recordings.iter().collect();
    let mut text = Vec::new();
    let balanced = page(&recordings, comparison.as_ref(), None, &mut text)?;
    write(&text)?;
    Ok(if balanced { Exit::Ok } else { Exit::Failed })
}

/// Writes the page of one recording, or of two with their comparison and their experiment.
/// Returns whether their ledgers balance.
pub(super) fn page(
    recordings: &[&LoadedRecording],
    comparison: Option<&Comparison>,
    experiment: Option<&Experiment>,
    text: &mut Vec<u8>,
) -> Result<bool> {
    let mut summaries = Vec::new();
    for recording in recordings {
        let summary = recording.totals.summary().ok_or_else(|| {
            let path = recording.totals.path.display();
            Failure::new(format!("{path} is another program's log: no page"))
                .hint("--format table or csv show it")
        })?;
        summaries.push(summary);
    }
    let culprits: Vec<_> =
        recordings.iter().map(|recording| recording.totals.totals.stalls.culprits()).collect();
    let shown: Vec<_> = recordings
        .iter()
        .zip(&summaries)
        .zip(&culprits)
        .map(|((recording, (summary, series)), culprits)| views::html::Recording {
            name: recording.totals.path.display().to_string(),
            summary,
            series,
            timeline: &recording.timeline,
            stalls: recording.totals.totals.stalls.longest(),
            collapses: recording.totals.totals.stalls.slowest(),
            culprits,
            time: recording.totals.totals.stalls.time(),
            settings: recording.totals.settings.as_ref(),
            notes: &recording.totals.notes,
        })
        .collect();
    views::html::page(&shown, comparison, experiment, text)?;
    let balances = |summary: &Summary| summary.ledger.balanced || summary.ledger.stages.is_empty();
    Ok(summaries.iter().all(|(summary, _)| balances(summary)))
}

fn foreign(recording: &RecordingTotals) -> Vec<(String, Distribution)> {
    recording.foreign(DEFAULT_THRESHOLD_NS)
}

fn table(recording: &RecordingTotals, style: Style, text: &mut Vec<u8>) -> Result<()> {
    let foreign = foreign(recording);
    let summary = recording.summary();
    if let Some((summary, series)) = &summary {
        views::table::summary(summary, series, style, text)?;
    }
    if !foreign.is_empty() || summary.is_none() {
        let threshold_ns = summary.map_or(DEFAULT_THRESHOLD_NS, |(s, _)| s.run.threshold_ns);
        views::table::foreign(&foreign, threshold_ns, recording.unit, style, text)?;
    }
    Ok(())
}

fn json(recording: &RecordingTotals, text: &mut Vec<u8>) -> Result<()> {
    if let Some(settings) = &recording.settings {
        views::json::settings(settings, text)?;
    }
    for (tag, distribution) in foreign(recording) {
        views::json::foreign(&tag, &distribution, text)?;
    }
    if let Some((summary, _)) = recording.summary() {
        views::json::summary(&summary, text)?;
    }
    Ok(())
}

/// The distribution that hgrm shows: of the selected series, or by default of net_rx (of all
/// series in another program's log).
fn sum(recording: &RecordingTotals, default: bool) -> Result<Distribution, Failure> {
    let is_wanted = |key: &SeriesKey| match key {
        SeriesKey::Known(id) => !default || id.stage == Stage::NetRx,
        SeriesKey::Foreign(_) => !default || recording.run.is_none(),
    };
    let mut sum = Distribution::default();
    for (_, total) in recording.totals.series.iter().filter(|(key, _)| is_wanted(key)) {
        sum.add(&total.distribution);
    }
    if sum.buckets.is_empty() {
        let path = recording.path.display();
        let what = format!("{path} has no value in the series asked for");
        let hint = "--format csv lists the series; --series selects by parts of their names";
        return Err(Failure::new(what).hint(hint));
    }
    Ok(sum)
}
