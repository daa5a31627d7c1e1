//! `report`: shows recordings.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum, ValueHint};
use latency_common::stage::Stage;

use crate::cli::Console;
use crate::cli::stdout::Output;
use crate::{
    compare::{Recorded, compare},
    model::{
        distribution::Distribution, experiment::Experiment, failure::Failure,
        run::DEFAULT_THRESHOLD_NS, source::Source, summary::Summary, timeline::Timeline,
    },
    recording::loaded::Whole,
    views::{self, Style},
};

/// What to show, and how.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  What the run said when it ended:
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
    /// Recordings, or interval logs of other programs.
    #[arg(value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// How to show them.
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: ReportFormat,
    /// Only series whose tag has all these parts, as in stage=napi_poll;if=eth0;
    /// repeatable. With hgrm, they are added up; without it, net_rx of all CPUs.
    #[arg(long, value_name = "PARTS")]
    pub series: Vec<String>,
    /// Write here, not to stdout.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
}

/// How recordings are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people.
    Table,
    /// For programs: one object a line.
    Json,
    /// For spreadsheets: one line a series.
    Csv,
    /// HdrHistogram's percentile distribution, in microseconds.
    Hgrm,
    /// Stacks of stalls, for flame graphs.
    Folded,
    /// A page of its own to send: of one recording, or of one before and one after.
    Html,
}

/// Runs the command and returns the exit status: 1 when a ledger in them does not balance.
///
/// # Errors
///
/// When a recording cannot be read, or the output cannot be written.
pub fn run(args: &Arguments, mut console: Console) -> Result<u8> {
    // Nothing is read in vain.
    let file = args.output.as_deref().map(create).transpose()?;
    if args.format == ReportFormat::Html {
        return html(args, file, console);
    }
    if args.format == ReportFormat::Hgrm && args.files.len() > 1 {
        let failure = Failure { status: 2, ..Failure::new("hgrm shows one recording") };
        return Err(failure.hint("merge them first").into());
    }
    let colour = console.colour && file.is_none();
    let style = Style { colour, width: Style::MAX_WIDTH };
    let mut output = match file {
        Some(file) => Output::new(Box::new(file), 0),
        None => Output::new(console.out, 0),
    };
    let mut text = Vec::new();
    let mut unbalanced = false;
    let mut stacks: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    if args.format == ReportFormat::Csv {
        views::csv::head(&mut text)?;
    }
    for (at, path) in args.files.iter().enumerate() {
        let mut whole = Whole::read(path, |_| {})?;
        for remark in &whole.remarks {
            writeln!(console.err, "warning: {remark}")?;
        }
        select(&mut whole, &args.series);
        unbalanced |= whole.end.as_ref().is_some_and(|end| !end.ledger.balanced);
        match args.format {
            ReportFormat::Table => {
                if at > 0 {
                    text.push(b'\n');
                }
                if args.files.len() > 1 {
                    writeln!(text, "{}:", path.display())?;
                }
                table(&whole, style, &mut text)?;
            }
            ReportFormat::Json => json(&whole, &mut text)?,
            ReportFormat::Csv => {
                let timed = whole.summary().map(|(_, timed)| timed).unwrap_or_default();
                let name = path.display().to_string();
                views::csv::series(&name, &timed, &plain(&whole), &mut text)?;
            }
            ReportFormat::Hgrm => {
                let sum = sum(&whole, args.series.is_empty(), path)?;
                views::hgrm::distribution(&sum, &mut text)?;
            }
            ReportFormat::Html => unreachable!("pages are written above"),
            ReportFormat::Folded => {
                for (frames, count) in whole.stacks {
                    *stacks.entry(frames).or_default() += count;
                }
            }
        }
        output.write(&text)?;
        text.clear();
        if output.is_closed() {
            break;
        }
    }
    if args.format == ReportFormat::Folded {
        if stacks.is_empty() {
            writeln!(console.err, "warning: no stacks: no stall was sampled")?;
        }
        views::folded::stacks(stacks.iter().map(|(f, n)| (f.as_slice(), *n)), &mut text)?;
        output.write(&text)?;
    }
    Ok(u8::from(unbalanced))
}

fn html(args: &Arguments, file: Option<File>, mut console: Console) -> Result<u8> {
    if args.files.len() > 2 {
        let failure = Failure { status: 2, ..Failure::new("a page shows one or two recordings") };
        return Err(failure.hint("merge them first").into());
    }
    let mut text = Vec::new();
    let balanced = page(&args.files, None, &mut text, &mut console.err)?;
    match file {
        Some(file) => Output::new(Box::new(file), 0).write(&text)?,
        None => Output::new(console.out, 0).write(&text)?,
    }
    Ok(u8::from(!balanced))
}

/// Writes the page of one recording, or of two with their comparison and their experiment.
/// Returns whether their ledgers balance.
pub(super) fn page(
    files: &[PathBuf],
    experiment: Option<&Experiment>,
    text: &mut Vec<u8>,
    err: &mut dyn Write,
) -> Result<bool> {
    let mut timelines = Vec::new();
    let mut recorded = Vec::new();
    for path in files {
        let mut timeline = Timeline::default();
        recorded.push(Recorded::watch(path, |one| timeline.add(one.duration, &one.series))?);
        timelines.push(timeline);
    }
    let mut summaries = Vec::new();
    for (one, path) in recorded.iter().zip(files) {
        for remark in one.remarks() {
            writeln!(err, "warning: {remark}")?;
        }
        let summary = one.whole().summary().ok_or_else(|| {
            Failure::new(format!("{} is another program's log: no page", path.display()))
                .hint("--format table or csv show it")
        })?;
        summaries.push(summary);
    }
    let shown: Vec<_> = recorded
        .iter()
        .zip(files)
        .zip(&timelines)
        .zip(&summaries)
        .map(|(((one, path), timeline), (summary, timed))| views::html::Recording {
            name: path.display().to_string(),
            summary,
            timed,
            timeline,
            stalls: &one.whole().stalls,
            collapses: &one.whole().collapses,
            stacks: &one.whole().stacks,
            settings: one.whole().settings.as_ref(),
            remarks: one.remarks(),
        })
        .collect();
    let comparison = match &recorded[..] {
        [before, after] => Some(compare(before, after)),
        _ => None,
    };
    views::html::page(&shown, comparison.as_ref(), experiment, text)?;
    let balances = |summary: &Summary| summary.ledger.balanced || summary.ledger.stages.is_empty();
    Ok(summaries.iter().all(|(summary, _)| balances(summary)))
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot create {}", path.display()))
}

/// Keeps the series that have all parts of one of `wanted`.
fn select(whole: &mut Whole, wanted: &[String]) {
    if !wanted.is_empty() {
        whole.totals.retain(|source, _| wanted.iter().any(|parts| source.has_parts(parts)));
    }
}

fn plain(whole: &Whole) -> Vec<(String, Distribution)> {
    whole.plain(DEFAULT_THRESHOLD_NS)
}

fn table(whole: &Whole, style: Style, text: &mut Vec<u8>) -> Result<()> {
    let plain = plain(whole);
    let summary = whole.summary();
    if let Some((summary, timed)) = &summary {
        views::table::summary(summary, timed, style, text)?;
    }
    if !plain.is_empty() || summary.is_none() {
        let threshold_ns = summary.map_or(DEFAULT_THRESHOLD_NS, |(s, _)| s.run.threshold_ns);
        views::table::plain(&plain, threshold_ns, style, text)?;
    }
    Ok(())
}

fn json(whole: &Whole, text: &mut Vec<u8>) -> Result<()> {
    if let Some(settings) = &whole.settings {
        views::json::settings(settings, text)?;
    }
    for (tag, distribution) in plain(whole) {
        views::json::plain(&tag, &distribution, text)?;
    }
    if let Some((summary, _)) = whole.summary() {
        views::json::summary(&summary, text)?;
    }
    Ok(())
}

/// What hgrm shows: the selected series, or by default those that stalls are counted in.
fn sum(whole: &Whole, default: bool, path: &Path) -> Result<Distribution, Failure> {
    let is_wanted = |source: &Source| match source {
        Source::Series(series) => !default || series.stage == Stage::NetRx,
        Source::Plain(_) => !default || whole.run.is_none(),
    };
    let mut sum = Distribution::default();
    for (_, distribution) in whole.totals.iter().filter(|(source, _)| is_wanted(source)) {
        sum.add(distribution);
    }
    if sum.buckets.is_empty() {
        let what = format!("{} has no value in the series asked for", path.display());
        let hint = "--format csv lists the series; --series selects by parts of their names";
        return Err(Failure::new(what).hint(hint));
    }
    Ok(sum)
}
