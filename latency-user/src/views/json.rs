//! JSON for programs: one object per line, the summary last.

use std::{io, time::SystemTime};

use serde::Serialize;

use crate::model::{
    comparison::Comparison,
    diagnosis::Diagnosis,
    distribution::Distribution,
    experiment::{Experiment, ExperimentPlan},
    finding::Triage,
    hidden_characters::is_hidden,
    interval::Interval,
    schema::Envelope,
    settings::HostSettings,
    stall::batch::StallBatch,
    summary::{Numbers, SeriesSummary, Summary},
};

/// An interval in numbers.
#[derive(Serialize)]
struct IntervalSummary {
    /// RFC 3339, UTC.
    started_at: String,
    duration_s: f64,
    series: Vec<SeriesSummary>,
}

/// Writes the stalls of an interval, then its series as one line: kind `interval`. The run started
/// at `run_started_at`.
///
/// # Errors
///
/// What `out` fails with.
pub fn interval(
    interval: &Interval,
    run_started_at: SystemTime,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    stalls(&interval.batch, out)?;
    let started_at = run_started_at + interval.start;
    let body = IntervalSummary {
        started_at: humantime::format_rfc3339_millis(started_at).to_string(),
        duration_s: interval.duration.as_secs_f64(),
        series: interval.series.iter().map(SeriesSummary::new).collect(),
    };
    line(&Envelope::new("interval", &body), out)
}

/// Writes stalls and slow collapses, one a line: kinds `stall` and `collapse`.
///
/// # Errors
///
/// What `out` fails with.
pub fn stalls(batch: &StallBatch, out: &mut dyn io::Write) -> io::Result<()> {
    for stall in &batch.stalls {
        line(&Envelope::new("stall", stall), out)?;
    }
    for collapse in &batch.collapses {
        line(&Envelope::new("collapse", collapse), out)?;
    }
    Ok(())
}

/// Writes the result of a run as one line: kind `summary`.
///
/// # Errors
///
/// What `out` fails with.
pub fn summary(summary: &Summary, out: &mut dyn io::Write) -> io::Result<()> {
    line(&Envelope::new("summary", summary), out)
}

/// Writes the host's settings as one line: kind `settings`.
///
/// # Errors
///
/// What `out` fails with.
pub fn settings(settings: &HostSettings, out: &mut dyn io::Write) -> io::Result<()> {
    line(&Envelope::new("settings", settings), out)
}

/// A foreign series in numbers.
#[derive(Serialize)]
struct ForeignSeries<'a> {
    tag: &'a str,
    #[serde(flatten)]
    numbers: Numbers,
}

/// Writes a series of another program or version as one line: kind `foreign_series`.
///
/// # Errors
///
/// What `out` fails with.
pub fn foreign(tag: &str, distribution: &Distribution, out: &mut dyn io::Write) -> io::Result<()> {
    let numbers = Numbers::new(distribution);
    line(&Envelope::new("foreign_series", &ForeignSeries { tag, numbers }), out)
}

/// A comparison with its verdict in words.
#[derive(Serialize)]
struct Judged<'a> {
    sentence: String,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

/// An experiment with its conclusion in words.
#[derive(Serialize)]
struct JudgedExperiment<'a> {
    sentence: String,
    #[serde(flatten)]
    experiment: &'a Experiment,
}

/// Writes a comparison as one line: kind `comparison`.
///
/// # Errors
///
/// What `out` fails with.
pub fn comparison(comparison: &Comparison, out: &mut dyn io::Write) -> io::Result<()> {
    let judged = Judged { sentence: super::comparison::sentence(comparison), comparison };
    line(&Envelope::new("comparison", &judged), out)
}

/// Writes an experiment as one line: kind `experiment`.
///
/// # Errors
///
/// What `out` fails with.
pub fn experiment(experiment: &Experiment, out: &mut dyn io::Write) -> io::Result<()> {
    let judged = JudgedExperiment { sentence: super::experiment::sentence(experiment), experiment };
    line(&Envelope::new("experiment", &judged), out)
}

/// Writes the plan of an experiment as one line: kind `plan`.
///
/// # Errors
///
/// What `out` fails with.
pub fn plan(plan: &ExperimentPlan, out: &mut dyn io::Write) -> io::Result<()> {
    line(&Envelope::new("plan", plan), out)
}

/// Writes what `doctor` found as one line: kind `diagnosis`.
///
/// # Errors
///
/// What `out` fails with.
pub fn diagnosis(diagnosis: &Diagnosis, out: &mut dyn io::Write) -> io::Result<()> {
    line(&Envelope::new("diagnosis", diagnosis), out)
}

/// Writes findings as lines of kind `finding`, heaviest first, and as the last line the path and
/// the verdict: kind `triage`.
///
/// # Errors
///
/// What `out` fails with.
pub fn triage(triage: &Triage, out: &mut dyn io::Write) -> io::Result<()> {
    for finding in &triage.findings {
        line(&Envelope::new("finding", finding), out)?;
    }
    line(&Envelope::new("triage", triage), out)
}

/// Writes a complete line at once, so that a reader of a pipe sees no partial line.
fn line(object: &impl Serialize, out: &mut dyn io::Write) -> io::Result<()> {
    let mut line = escaped(serde_json::to_string(object)?);
    line.push('\n');
    out.write_all(line.as_bytes())?;
    out.flush()
}

/// JSON in which hidden characters are escaped, not only those below a space.
fn escaped(json: String) -> String {
    if !json.contains(is_hidden) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::views::fixtures;

    #[test]
    fn hidden_characters_are_escaped() {
        let json = escaped(serde_json::to_string("\u{9b}é\u{202e}\x1b\u{e0041}").unwrap());
        assert_eq!(json, "\"\\u009bé\\u202e\\u001b\\udb40\\udc41\"");
        let back: String = serde_json::from_str(&json).unwrap();
        assert_eq!(back, "\u{9b}é\u{202e}\x1b\u{e0041}");
    }

    fn parsed(write: impl Fn(&mut Vec<u8>)) -> Value {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(out.last(), Some(&b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_summary_has_the_names_of_the_contract() {
        let result = fixtures::summary(&fixtures::stalled());
        let object = parsed(|out| summary(&result, out).unwrap());
        let mut keys: Vec<_> = object.as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(
            keys,
            ["kind", "ledger", "run", "schema_version", "self_cost", "series", "stalls"]
        );
        assert_eq!(object["kind"], "summary");
        assert_eq!(object["schema_version"], 2);
        assert_eq!(object["run"]["threshold_ns"], 1_000_000);
        assert_eq!(object["run"]["probes"][1]["method"], "tracepoint");
        assert_eq!(object["ledger"]["balanced"], true);
        let series = object["series"].as_array().unwrap();
        let cpu = series.iter().find(|s| s["stage"] == "net_rx" && s["cpu"] == 1).unwrap();
        assert_eq!(cpu["over_threshold"], 37);
        for name in [
            "count",
            "sum_ns",
            "min_ns",
            "p50_ns",
            "p90_ns",
            "p99_ns",
            "p99_9_ns",
            "p99_99_ns",
            "max_ns",
            "ppm",
        ] {
            assert!(cpu[name].is_number(), "{name}: {cpu}");
        }
        let queue = series.iter().find(|s| s["stage"] == "napi_poll" && s["queue"] == 2).unwrap();
        assert_eq!((&queue["iface"], &queue["irq"]), (&Value::from("eth0"), &Value::from(31)));
    }

    #[test]
    fn an_interval_has_its_start_time() {
        let object = parsed(|out| {
            interval(&fixtures::interval(fixtures::stalled()), fixtures::started_at(), out).unwrap()
        });
        assert_eq!(object["kind"], "interval");
        assert_eq!(object["schema_version"], 2);
        assert_eq!(object["started_at"], "2026-01-02T03:04:05.006Z");
        assert_eq!(object["duration_s"], 1.5);
        assert!(!object["series"].as_array().unwrap().is_empty());
    }
}
