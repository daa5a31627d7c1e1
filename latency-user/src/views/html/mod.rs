//! The page to attach to an incident: one file, no network, no script.
//!
//! Figures are SVG drawn here; each has its numbers as a table beside it. Colours come from the
//! style sheet in the template, so that they follow the reader's theme and the printer.

mod curves;
mod experiment;
mod heat;
mod settings;
mod stalls;
mod svg;
mod windows;

use std::io;

use latency_common::stage::Stage;
use minijinja::{AutoEscape, Environment, value::Serde};
use serde::Serialize;

use super::{
    comparison, duration_classes, experiment as experiment_text,
    format::{bytes, duration, short_duration},
    stall_time, table,
};
use crate::model::{
    comparison::{Comparison, Verdict},
    duration_classes::DurationClasses,
    experiment::Experiment,
    note::Note,
    series::Series,
    settings::HostSettings,
    stall::{Stall, collapse::Collapse, culprit::Culprit, time::StallTime},
    summary::{Numbers, Summary},
    timeline::Timeline,
};

/// Maximum number of series in tables; CSV has all.
const MOST_SERIES: usize = 400;

/// Culprits in the headline.
const MOST_NAMED: usize = 4;

/// One recording for the page.
pub struct Recording<'a> {
    /// Its file.
    pub name: String,
    /// Its numbers.
    pub summary: &'a Summary,
    /// Its distributions.
    pub series: &'a [Series],
    /// Its timeline.
    pub timeline: &'a Timeline,
    /// Its longest stalls.
    pub stalls: &'a [Stall],
    /// Its slowest calls of `tcp_collapse`.
    pub collapses: &'a [Collapse],
    /// The functions that its stalls were spent in, worst first.
    pub culprits: &'a [Culprit],
    /// The time of the stalls.
    pub time: StallTime,
    /// Settings of the host; `None`: not recorded.
    pub settings: Option<&'a HostSettings>,
    /// Notes on the file.
    pub notes: &'a [Note],
}

/// Values for the template.
#[derive(Serialize)]
struct Page<'a> {
    verdict: String,
    alarm: bool,
    notes: Vec<String>,
    compared: Vec<Vec<String>>,
    experiment: Option<experiment::HtmlExperiment>,
    /// Heads and rows; empty for a single recording.
    duration_classes: Vec<Vec<String>>,
    curves: Vec<Figure>,
    recordings: Vec<HtmlRecording>,
    settings: Vec<settings::HtmlSetting>,
    legend: &'a [(&'a str, &'a str)],
    live: Option<&'a Live>,
    version: &'a str,
}

/// What only the page of a daemon has.
#[derive(Serialize)]
pub struct Live {
    /// After how many seconds it is fetched again; `None`: it stays as it is.
    pub refresh_s: Option<u64>,
    /// What the daemon has to say about itself.
    pub notes: Vec<String>,
    /// The recordings that it keeps, newest first.
    pub kept: Vec<Kept>,
}

/// A recording that a daemon keeps.
#[derive(Serialize)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// Its size, for people.
    pub size: String,
    /// Where its page is.
    pub href: String,
}

/// A figure with its numbers.
#[derive(Serialize)]
struct Figure {
    title: String,
    note: String,
    svg: String,
    /// Names of the columns.
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// A recording as the template takes it.
#[derive(Serialize)]
struct HtmlRecording {
    name: String,
    verdict: String,
    culprits_named: String,
    about: Vec<(String, String)>,
    probes: Vec<Vec<String>>,
    heat: Vec<Figure>,
    timeline: Option<Figure>,
    series: Vec<Vec<String>>,
    stalls: Vec<stalls::HtmlStall>,
    culprits: Vec<Vec<String>>,
    sockets: Vec<Vec<String>>,
    collapses: Vec<Vec<String>>,
    pressure: Vec<Vec<String>>,
    accounting: Vec<String>,
    notes: Vec<String>,
}

/// Writes the page for one recording, or for two with their comparison and, if they belong to one,
/// their experiment.
///
/// # Errors
///
/// What `out` fails with.
pub fn page(
    recordings: &[Recording<'_>],
    compared: Option<&Comparison>,
    experiment: Option<&Experiment>,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    render(recordings, compared, experiment, None, out)
}

/// Writes the page of a daemon, about the last minutes.
///
/// # Errors
///
/// What `out` fails with.
pub fn live_page(recent: &Recording<'_>, live: &Live, out: &mut dyn io::Write) -> io::Result<()> {
    render(std::slice::from_ref(recent), None, None, Some(live), out)
}

fn render(
    recordings: &[Recording<'_>],
    compared: Option<&Comparison>,
    experiment: Option<&Experiment>,
    live: Option<&Live>,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let shown: Vec<HtmlRecording> = recordings.iter().map(show).collect();
    let verdict = match (experiment, compared, shown.first()) {
        (Some(found), ..) => experiment_text::sentence(found),
        (None, Some(comparison), _) => comparison::sentence(comparison),
        (None, None, Some(first)) => first.verdict.clone(),
        (None, None, None) => String::new(),
    };
    let alarm = match (experiment, compared) {
        (Some(found), _) => self::experiment::is_alarming(found),
        (None, Some(comparison)) => comparison.verdict == Verdict::Worse,
        (None, None) => {
            recordings.iter().any(|recording| !recording.summary.stalls.by_stage.is_empty())
        }
    };
    let page = Page {
        verdict,
        alarm,
        notes: compared.map(|comparison| texts(&comparison.notes)).unwrap_or_default(),
        compared: compared.map(comparison::rows).unwrap_or_default(),
        experiment: experiment.map(self::experiment::show),
        duration_classes: match recordings {
            [before, after] => {
                let of = |recording: &Recording<'_>| {
                    DurationClasses::new(recording.series.iter().map(|s| (&s.id, &s.distribution)))
                };
                duration_classes::rows(&[of(before), of(after)]).to_vec()
            }
            _ => Vec::new(),
        },
        curves: curves::figures(recordings),
        recordings: shown,
        settings: settings::rows(recordings),
        legend: &heat::LEGEND,
        live,
        version: env!("CARGO_PKG_VERSION"),
    };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let page = environment
        .template_from_named_str("page.html", include_str!("page.html"))
        .and_then(|template| template.render(Serde(page)))
        .map_err(io::Error::other)?;
    out.write_all(page.as_bytes())?;
    out.flush()
}

fn show(recording: &Recording<'_>) -> HtmlRecording {
    let summary = recording.summary;
    let run = &summary.run;
    let mut series: Vec<Vec<String>> = recording
        .series
        .iter()
        .map(|series| {
            let mut row = vec![series.id.stage.name().to_owned(), table::label(series)];
            row.extend(table::numbers(&Numbers::new(&series.distribution)));
            row
        })
        .collect();
    series.truncate(MOST_SERIES);
    let shares = stall_time::shares(recording.culprits, &recording.time, usize::MAX).into_iter();
    let culprits = shares.map(|part| {
        let samples = part.samples.map_or("-".to_owned(), |samples| samples.to_string());
        vec![part.name, share(part.share), samples]
    });
    let probes = run.probes.iter().map(|probe| {
        vec![
            probe.stage.name().to_owned(),
            probe.method.map_or("not timed", |method| method.name()).to_owned(),
            probe.at.clone(),
            texts(&probe.notes).join("; "),
        ]
    });
    HtmlRecording {
        name: recording.name.clone(),
        verdict: table::verdict(summary, recording.series),
        culprits_named: culprits_named(recording),
        about: about(summary),
        probes: probes.collect(),
        heat: [Stage::NetRx, Stage::NapiPoll, Stage::RxWait]
            .into_iter()
            .filter_map(|stage| heat::figure(recording, stage))
            .collect(),
        timeline: stalls::timeline(recording),
        series,
        stalls: stalls::worst(recording.stalls),
        culprits: culprits.collect(),
        sockets: stalls::sockets(&summary.stalls.sockets),
        collapses: stalls::collapses(recording.collapses),
        pressure: stalls::pressure(&summary.stalls.tcp),
        accounting: table::accounting_of(summary),
        notes: texts(recording.notes),
    }
}

/// The text of each note.
fn texts(notes: &[Note]) -> Vec<String> {
    notes.iter().map(Note::to_string).collect()
}

/// `87%`
fn share(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

fn about(summary: &Summary) -> Vec<(String, String)> {
    let run = &summary.run;
    let ifaces = if run.ifaces.is_empty() { "all".into() } else { run.ifaces.join(", ") };
    let cost = &summary.self_cost;
    let rows = [
        ("Host", run.host.clone()),
        ("Kernel", run.kernel.clone()),
        ("CPUs", run.cpus.to_string()),
        ("Started", run.started_at.clone()),
        ("Lasted", duration((run.duration_s * 1e9) as u64)),
        ("Interfaces", ifaces),
        ("Threshold", short_duration(run.threshold_ns)),
        ("Histogram memory", bytes(cost.row_bytes)),
        ("Program", format!("latency-user {}", run.version)),
    ];
    rows.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// The culprits, and what the hypervisor took, in sentences.
fn culprits_named(recording: &Recording) -> String {
    let named = stall_time::text(recording.culprits, &recording.time, MOST_NAMED);
    let named = (!named.is_empty()).then(|| format!("Culprits: {named}."));
    let (stalls, seconds) = (&recording.summary.stalls, recording.summary.run.duration_s);
    let steal = stall_time::steal(stalls.steal.as_deref(), &recording.time, seconds);
    [named, steal].into_iter().flatten().collect::<Vec<_>>().join(" ")
}
