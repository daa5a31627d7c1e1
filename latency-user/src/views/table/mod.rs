//! The table for people: the answer first, then every stage, then accounting and overhead.
//!
//! At most 80 columns wide, without a terminal as well.

mod accounting;
mod answer;
mod columns;
mod foreign;
mod rows;
mod stalls;

use std::{io, time::SystemTime};

use latency_common::stage::Stage;

use crate::model::{
    distribution::Distribution,
    interval::Interval,
    note::Note,
    run::{Run, SelectedProbe},
    series::Series,
    summary::{Numbers, Summary},
    unit::Unit,
};

pub(super) use self::stalls::without_parts;
use self::{
    columns::{Block, Widths},
    rows::Fold,
};
use super::{
    Style, cost,
    format::{counted, duration, length},
    text::{paragraph, printable},
};

/// Writes one interval of a run in progress that started at `run_started_at`: its time, the
/// answer, and the series with events.
///
/// # Errors
///
/// What `out` fails with.
pub fn interval(
    interval: &Interval,
    run_started_at: SystemTime,
    threshold_ns: u64,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let mut text = String::new();
    let stages = rows::by_stage(&interval.series);
    let time = humantime::format_rfc3339_millis(run_started_at + interval.start).to_string();
    let time = time.split_once('T').map_or(&*time, |(_, time)| time);
    let lasted = length(interval.duration);
    let stalled = stages.iter().any(|(_, rows)| rows::stalls(rows) > 0);
    let answer = answer::answer(&stages, threshold_ns, &lasted)
        .unwrap_or_else(|| vec![format!("No event in {lasted}.")]);
    paragraph(&mut text, &format!("{time} {}", answer.join(" ")), 2, style, emphasis(stalled));

    let blocks: Vec<Block> = stages.into_iter().map(|s| Block::new(s, Fold::LIVE)).collect();
    let widths = Widths::of(&blocks, style);
    for (at, block) in blocks.iter().enumerate() {
        if at == 0 {
            text.push_str(&style.dim(&widths.titles(block.stage.name())));
        } else {
            text.push_str(&style.dim(block.stage.name()));
        }
        text.push('\n');
        block.write(&mut text, &widths, style);
    }
    text.push('\n');
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes the result of a run. `series` holds the distributions behind `summary`: series shown as
/// one row (an IRQ on several CPUs) need quantiles of their sum.
///
/// # Errors
///
/// What `out` fails with.
pub fn summary(
    summary: &Summary,
    series: &[Series],
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let run = &summary.run;
    let mut text = String::new();
    let stages = rows::by_stage(series);
    let lasted = duration((run.duration_s * 1e9) as u64);
    let stalled = stages.iter().any(|(_, rows)| rows::stalls(rows) > 0);
    match answer::answer(&stages, run.threshold_ns, &lasted) {
        Some(sentences) => {
            for sentence in sentences {
                paragraph(&mut text, &sentence, 2, style, emphasis(stalled));
            }
            if let Some(sentence) = stalls::culprit_sentence(summary) {
                paragraph(&mut text, &sentence, 2, style, emphasis(stalled));
            }
            if let Some(sentence) = stalls::steal_sentence(summary) {
                paragraph(&mut text, &sentence, 2, style, emphasis(stalled));
            }
        }
        None => {
            paragraph(&mut text, &answer::nothing(run, &lasted), 2, style, Style::alarm);
        }
    }
    if let Some(line) = cost::disabled_stages(&summary.self_cost.kernel) {
        paragraph(&mut text, &line, 2, style, Style::alarm);
    }
    paragraph(&mut text, &about(run, &lasted), 2, style, Style::dim);

    let blocks: Vec<Block> = stages.into_iter().map(|s| Block::new(s, Fold::FINAL)).collect();
    let widths = Widths::of(&blocks, style);
    let mut compact = false;
    for probe in in_packet_order(&run.probes).filter(|probe| probe.method.is_some()) {
        let block = blocks.iter().find(|block| block.stage == probe.stage);
        // No empty line between stages without events.
        if !(compact && block.is_none()) {
            text.push('\n');
        }
        compact = block.is_none();
        heading(&mut text, probe, block.is_none(), style);
        if let Some(block) = block {
            text.push_str(&style.dim(&widths.titles("")));
            text.push('\n');
            block.write(&mut text, &widths, style);
        }
    }
    stalls::write(&mut text, summary, style);
    conclusion(&mut text, summary, style);
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The answer in one paragraph.
pub(super) fn verdict(summary: &Summary, series: &[Series]) -> String {
    let lasted = duration((summary.run.duration_s * 1e9) as u64);
    let mut sentences = answer::answer(&rows::by_stage(series), summary.run.threshold_ns, &lasted)
        .unwrap_or_else(|| vec![answer::nothing(&summary.run, &lasted)]);
    sentences.extend(cost::disabled_stages(&summary.self_cost.kernel));
    sentences.join(" ")
}

/// The label of a series' row.
pub(super) fn label(series: &Series) -> String {
    rows::Label::new(&series.id.at, &series.attrs).full()
}

/// The cells of a row, behind its name.
pub(super) fn numbers(numbers: &Numbers) -> [String; 8] {
    columns::cells(numbers)
}

/// Accounting, losses and overhead, a paragraph each.
pub(super) fn accounting_of(summary: &Summary) -> Vec<String> {
    let transport = summary.run.transport;
    let mut lines = accounting::balance(&summary.ledger, transport);
    lines.extend(accounting::losses(&summary.ledger, &summary.run));
    if summary.self_cost.programs > 0 {
        lines.extend(cost::sentences(summary));
    }
    lines
}

/// Writes the series of another program or version, whose values are in `unit`; `None`: it is not
/// known, and taken as ns.
///
/// # Errors
///
/// What `out` fails with.
pub fn foreign(
    foreign: &[(String, Distribution)],
    threshold_ns: u64,
    unit: Option<Unit>,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let mut text = String::new();
    foreign::block(&mut text, foreign, threshold_ns, unit, style);
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Where and when: `web-17, Linux 6.12.43, 4 CPUs, from 2026-01-02T03:04:05Z for 30.0s`.
fn about(run: &Run, lasted: &str) -> String {
    let mut about = format!(
        "{}, Linux {}, {} CPUs, from {} for {lasted}",
        printable(&run.host),
        printable(&run.kernel),
        run.cpus,
        printable(&run.started_at)
    );
    if !run.ifaces.is_empty() {
        about.push_str(", queues of ");
        about.push_str(&printable(&run.ifaces.join(", ")));
    }
    about
}

/// What the stage is, how it was probed, and notes on that.
fn heading(text: &mut String, probe: &SelectedProbe, empty: bool, style: Style) {
    let method = probe.method.map_or("", |method| method.name());
    let empty = if empty { ": no event" } else { "" };
    let what = format!("{}: {}", probe.stage.name(), meaning(probe.stage));
    let how = format!("({method} {}){empty}", printable(&probe.at));
    // Keep both on one line if they fit.
    if what.len() + 1 + how.len() <= style.columns() {
        paragraph(text, &format!("{what} {how}"), 2, style, Style::bold);
    } else {
        paragraph(text, &what, 2, style, Style::bold);
        paragraph(text, &format!("  {how}"), 4, style, Style::bold);
    }
    for note in &probe.notes {
        let line = format!("  note: {}", printable(&note.to_string()));
        paragraph(text, &line, 4, style, Style::plain);
    }
}

/// What a stage is, in a few words.
fn meaning(stage: Stage) -> &'static str {
    match stage {
        Stage::RxWait => "from the raise of NET_RX to its run",
        Stage::NetRx => "one run of net_rx_action",
        Stage::NapiPoll => "one NAPI poll of a queue",
        Stage::Irq => "one hard-IRQ handler",
        Stage::TcpCollapse => "one call of tcp_collapse",
        Stage::Softirq => "one run of another softirq",
    }
}

/// Stages not timed, accounting, losses and overhead.
fn conclusion(text: &mut String, summary: &Summary, style: Style) {
    text.push('\n');
    let absent: Vec<_> =
        in_packet_order(&summary.run.probes).filter(|probe| probe.method.is_none()).collect();
    if !absent.is_empty() {
        paragraph(text, "Stages not timed:", 0, style, Style::bold);
    }
    for probe in absent {
        let reasons: Vec<String> = probe.notes.iter().map(Note::to_string).collect();
        let line = format!("  {}: {}", probe.stage.name(), printable(&reasons.join("; ")));
        paragraph(text, &line, 4, style, Style::plain);
    }
    let transport = summary.run.transport;
    let known_bad = !summary.ledger.balanced && !summary.ledger.stages.is_empty();
    let paint = if known_bad { Style::alarm } else { Style::plain };
    for line in accounting::balance(&summary.ledger, transport) {
        paragraph(text, &line, 4, style, paint);
    }
    for line in accounting::losses(&summary.ledger, &summary.run) {
        paragraph(text, &line, 4, style, Style::plain);
    }
    if let Some(line) = stalls::limited(summary) {
        paragraph(text, &line, 4, style, Style::plain);
    }
    if let Some(lines @ 1..) = summary.dropped_output_lines {
        let lines = counted(lines, "line");
        let line = format!("  Output: {lines} dropped, because nobody read them in time.");
        paragraph(text, &line, 4, style, Style::alarm);
    }
    for line in accounting::misses(&summary.ledger) {
        paragraph(text, &line, 4, style, Style::alarm);
    }
    // A truncated recording does not contain the cost.
    if summary.self_cost.programs > 0 {
        for line in cost::sentences(summary) {
            paragraph(text, &line, 2, style, Style::plain);
        }
        for line in cost::programs(&summary.self_cost.kernel, &summary.ledger) {
            text.push_str(&style.dim(&line));
            text.push('\n');
        }
    }
}

fn in_packet_order(probes: &[SelectedProbe]) -> impl Iterator<Item = &SelectedProbe> {
    Stage::ALL.into_iter().flat_map(|stage| probes.iter().filter(move |p| p.stage == stage))
}

fn emphasis(stalled: bool) -> fn(Style, &str) -> String {
    if stalled { Style::alarm } else { Style::bold }
}

#[cfg(test)]
mod tests;
