//! Recordings of real runs, read by another HdrHistogram implementation and after a SIGKILL.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    time::{Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use latency_common::{bucket::lowest_value, stage::Stage};
use latency_tests::{load, namespace, python, tool};
use latency_user::{
    collect::{config::Config, tracer::Tracer},
    model::{
        interval::Interval,
        run::{Run, Sampling, Transport},
    },
    recording::writer::Writer,
};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    suite::{Where, trial},
    tracing::{Tracing, latency_user, series, wait_until},
};

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    [
        trial("recording::python_reads_the_same_buckets", Where::Host, &["python3"], buckets),
        trial("recording::python_reads_what_trace_wrote", Where::Host, &["python3"], traced),
        trial(
            "recording::a_killed_tracer_leaves_a_readable_recording",
            Where::Everywhere,
            &["bpftool"],
            kill,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// For each tag, the count of each bucket by the bucket's lowest value.
type Tags = BTreeMap<String, BTreeMap<u64, u64>>;

fn buckets() -> Result<()> {
    let python = python::with_packages()?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("run.hlog");
    let ours = namespace::run(|| {
        let mut tracer = Tracer::start(&Config {
            stages: vec![Stage::RxWait, Stage::NetRx, Stage::NapiPoll, Stage::Irq, Stage::Softirq],
            by_name: true,
            ..Config::new()
        })?;
        let started = Instant::now();
        let mut writer = Writer::create(&path)?;
        writer.start(&run(&tracer))?;
        for packets in [5003, 4001, 3001] {
            load::udp(packets)?;
            let series = tracer.take_series()?;
            writer.interval(&Interval::new(started.elapsed(), started.elapsed(), series))?;
        }
        let ledger = tracer.finish();
        ensure!(ledger.balanced, "{ledger:?}");
        let series = tracer.take_series()?;
        writer.interval(&Interval::new(started.elapsed(), started.elapsed(), series))?;

        let mut tags = Tags::new();
        for series in tracer.total() {
            let buckets = tags.entry(series.id.to_string()).or_default();
            for (index, count) in series.distribution.buckets {
                *buckets.entry(lowest_value(usize::from(index))).or_default() += count;
            }
        }
        Ok(tags)
    })?;
    let theirs: Tags = read_with(&python, &path)?
        .into_iter()
        .map(|(tag, histogram)| Ok((tag, serde_json::from_value(histogram["buckets"].clone())?)))
        .collect::<Result<_>>()?;
    ensure!(ours == theirs, "ours: {ours:?}\ntheirs: {theirs:?}");
    let stalls =
        ours.get("stage=napi_poll;q=backlog;cpu=0").or(ours.get("stage=napi_poll;q=backlog;cpu=1"));
    ensure!(
        stalls.is_some_and(|row| row.values().sum::<u64>() > 1000),
        "too little load: {ours:?}"
    );
    Ok(())
}

/// What Python's HdrHistogram reads from a recording: `count` and `buckets` of each tag.
fn read_with(python: &Path, recording: &Path) -> Result<BTreeMap<String, Value>> {
    let output = Command::new(python)
        .arg(python::script("read_recording.py"))
        .arg(recording)
        .output()
        .context("run Python")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The file of a real run with all its comments: Python's counts match the run's summary.
fn traced() -> Result<()> {
    let python = python::with_packages()?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("run.hlog");
    let text = path.to_string_lossy().into_owned();
    let summary = namespace::run(|| {
        // Every event of 1 ns or more is a stall, so the file has many stall comments.
        let tracing = Tracing::start(&["--output", &text, "--threshold", "1ns"])?;
        for packets in [5003, 4001, 3001] {
            load::udp(packets)?;
        }
        tracing.summary()
    })?;
    let stalls = std::fs::read_to_string(&path)?.matches("\"kind\":\"stall\"").count();
    ensure!(stalls > 100, "{stalls} stalls are described");
    let read = read_with(&python, &path)?;
    let runs = series(&summary, |row| row["stage"] == "net_rx");
    ensure!(!runs.is_empty(), "{summary}");
    let mut total = 0;
    for run in runs {
        let theirs = &read[&format!("stage=net_rx;cpu={}", run["cpu"])];
        ensure!(theirs["count"] == run["count"], "{run}: {}", theirs["count"]);
        total += run["count"].as_u64().context("no count")?;
    }
    ensure!(total >= 5003 + 4001 + 3001, "{total} runs");
    let ours = summary["series"].as_array().map_or(0, Vec::len);
    ensure!(read.len() == ours, "{} series, read {:?}", ours, read.keys());
    Ok(())
}

fn run(tracer: &Tracer) -> Run {
    Run {
        host: "test".into(),
        kernel: "test".into(),
        started_at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        duration_s: 0.0,
        ifaces: Vec::new(),
        threshold_ns: 1_000_000,
        transport: Transport::Maps,
        probes: tracer.probes().to_vec(),
        sampling: Sampling::default(),
        cpus: tracer.cpus(),
        version: "test".into(),
    }
}

fn kill() -> Result<()> {
    namespace::run(killed)
}

fn killed() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("run.hlog");
    let text = path.to_string_lossy().into_owned();
    let before = our_programs()?;
    let mut tracing = Tracing::start(&["--output", &text])?;
    ensure!(our_programs()? > before, "no program is attached");
    let has_events = |interval: &Value| !series(interval, |_| true).is_empty();
    loop {
        load::udp(101)?;
        let interval = tracing.next_line()?.context("it ended by itself")?;
        if has_events(&interval) {
            break;
        }
    }
    let ended = tracing.end(libc::SIGKILL)?;
    ensure!(!ended.status.success() && ended.summary["kind"] != "summary");
    // The kernel frees programs shortly after their last user is gone.
    wait_until("all programs are gone", || Ok(our_programs()? == before))?;

    let recording = std::fs::read(&path)?;
    // The kernel ends the write of a killed process at a page: the last line may be a part of one,
    // which only our reader expects.
    let lines = recording.iter().rposition(|byte| *byte == b'\n').context("no line")?;
    let mut intervals = 0;
    for entry in IntervalLogIterator::new(&recording[..=lines]) {
        let entry = entry.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        intervals += usize::from(matches!(entry, LogEntry::Interval(_)));
    }
    ensure!(intervals > 0, "no interval in {}", String::from_utf8_lossy(&recording));
    let report = latency_user()?.args(["report", &text]).output().context("run latency-user")?;
    ensure!(report.status.success(), "{}", String::from_utf8_lossy(&report.stderr));
    // The next tracer can start.
    Tracing::start(&[])?.summary()?;
    Ok(())
}

/// Number of our programs that are loaded in the kernel, found by name.
fn our_programs() -> Result<usize> {
    let list = tool::run("bpftool prog show")?;
    Ok(list.lines().filter(|line| line.contains("name softirq_entry")).count())
}
