//! Tests of the writer: what it wrote reads back, bucket for bucket.

use std::{collections::BTreeMap, fs};

use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    },
};
use latency_common::{
    bucket::{BUCKETS, MAX_VALUE, lowest_value},
    stage::Stage,
};
use serde_json::Value;

use super::*;
use crate::{
    analysis::totals::Totals,
    model::{
        distribution::Distribution,
        run::{Sampling, Transport},
        series::{
            Location, Queue, QueueId, Series,
            attrs::{NamedBy, QueueAttrs},
        },
    },
    recording::format::COMMENT,
};

fn run() -> Run {
    Run {
        host: "web-17".into(),
        kernel: "6.12.43".into(),
        started_at: "2026-01-02T03:04:05.006Z".into(),
        duration_s: 2.0,
        ifaces: Vec::new(),
        threshold_ns: 1_000_000,
        transport: Transport::Maps,
        probes: Vec::new(),
        sampling: Sampling::default(),
        cpus: 4,
        version: "0.1.0".into(),
    }
}

fn of(values: impl IntoIterator<Item = u64>) -> Distribution {
    let mut distribution = Distribution::default();
    for value in values {
        distribution.record(value, 1_000_000, 2);
    }
    distribution
}

fn queue(values: impl IntoIterator<Item = u64>) -> Series {
    let queue = Queue::Device { iface: "a,b c".into(), netns: None, id: QueueId::Rx(2) };
    let attrs = QueueAttrs { napi_id: Some(513), irq: Some(31), named_by: Some(NamedBy::Irq) };
    Series { attrs, ..Series::new(Stage::NapiPoll, Location::Queue(queue), of(values)) }
}

/// Two intervals; the first fills every bucket once.
fn intervals() -> Vec<Interval> {
    let cpu = |cpu, distribution| Series::new(Stage::NetRx, Location::Cpu(cpu), distribution);
    vec![
        Interval::new(
            Duration::from_millis(3),
            Duration::from_micros(1_000_700),
            vec![
                cpu(3, of((0..BUCKETS).map(lowest_value))),
                cpu(4, Distribution::default()),
                queue([7, 1_234_567, 21_400_123]),
            ],
        ),
        Interval::new(
            Duration::from_millis(1004),
            Duration::from_secs(1),
            vec![cpu(3, of([0, 1, 255, 256, MAX_VALUE, MAX_VALUE])), queue([7, 8, 9_000_000])],
        ),
    ]
}

fn summary() -> Summary {
    let mut totals = Totals::default();
    intervals().iter().for_each(|interval| totals.add(interval));
    totals.summary(run(), &totals.series())
}

/// The expected counts, by tag and lowest value of the bucket.
fn expected() -> BTreeMap<String, BTreeMap<u64, u64>> {
    let mut tags: BTreeMap<String, BTreeMap<u64, u64>> = BTreeMap::new();
    for series in intervals().iter().flat_map(|interval| &interval.series) {
        for (index, count) in &series.distribution.buckets {
            let buckets = tags.entry(series.id.tag()).or_default();
            *buckets.entry(lowest_value(usize::from(*index))).or_default() += count;
        }
    }
    tags
}

fn started(path: &Path) -> Writer {
    let mut writer = Writer::create(path).unwrap();
    writer.start(&run()).unwrap();
    writer
}

fn written(finish: bool) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.hlog");
    let mut writer = started(&path);
    for interval in intervals() {
        writer.interval(&interval).unwrap();
    }
    if finish {
        writer.finish(&summary()).unwrap();
    }
    fs::read_to_string(path).unwrap()
}

fn objects(recording: &str) -> Vec<Value> {
    let payloads = recording.lines().filter_map(|line| line.strip_prefix(COMMENT));
    payloads.map(|payload| serde_json::from_str(payload).unwrap()).collect()
}

#[test]
fn every_bucket_reads_back() {
    let recording = written(true);
    let mut tags: BTreeMap<String, BTreeMap<u64, u64>> = BTreeMap::new();
    let mut starts = Vec::new();
    let mut start_time = Duration::ZERO;
    for entry in IntervalLogIterator::new(recording.as_bytes()) {
        match entry.unwrap() {
            LogEntry::StartTime(time) => start_time = time,
            LogEntry::BaseTime(_) => panic!("times are relative to the start"),
            LogEntry::Interval(line) => {
                starts.push((line.start_timestamp(), line.duration(), line.max()));
                let bytes = STANDARD.decode(line.encoded_histogram()).unwrap();
                let histogram: Histogram<u64> =
                    Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
                assert_eq!(histogram.distinct_values(), BUCKETS);
                let buckets = tags.entry(line.tag().unwrap().as_str().into()).or_default();
                for value in histogram.iter_recorded() {
                    let lowest = histogram.lowest_equivalent(value.value_iterated_to());
                    *buckets.entry(lowest).or_default() += value.count_at_value();
                }
            }
        }
    }
    assert_eq!(start_time, Duration::from_millis(1_767_323_045_006));
    assert_eq!(tags, expected());
    let ms = Duration::from_millis;
    assert_eq!(
        starts,
        [
            (ms(3), ms(1000), 68_451.041),
            (ms(3), ms(1000), 21.4),
            (ms(1004), ms(1000), 68_719.477),
            (ms(1004), ms(1000), 9.0),
        ]
    );
}

#[test]
fn comments_carry_what_histograms_cannot() {
    let recording = written(true);
    let mut lines = recording.lines();
    assert_eq!(lines.next(), Some("#[Histogram log format version 1.3]"));
    assert_eq!(
        lines.next(),
        Some("#[StartTime: 1767323045.006 (seconds since epoch), 2026-01-02T03:04:05.006Z]")
    );
    let objects = objects(&recording);
    let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, [RUN, INTERVAL, INTERVAL, SUMMARY]);
    assert!(objects.iter().all(|object| object["schema_version"] == 2));
    assert_eq!(objects[0]["host"], "web-17");
    let meta = &objects[1]["series"]["stage=napi_poll;if=a%2cb%20c;q=2"];
    assert_eq!(meta["sum_ns"], 7 + 1_234_567 + 21_400_123);
    assert_eq!(meta["max_ns"], 21_400_123);
    assert_eq!(meta["over_threshold"], 2);
    assert_eq!(meta["work"], 6);
    assert_eq!((&meta["napi_id"], &meta["irq"]), (&513.into(), &31.into()));
    let meta = &objects[2]["series"]["stage=napi_poll;if=a%2cb%20c;q=2"];
    assert_eq!(meta["sum_ns"], 9_000_015);
    assert_eq!(objects[2]["start_s"], 1.004);
}

#[test]
fn a_killed_run_reads_up_to_its_last_interval() {
    let recording = written(false);
    assert!(recording.ends_with('\n'));
    assert_eq!(objects(&recording).len(), 3);
    let lines = IntervalLogIterator::new(recording.as_bytes())
        .filter(|entry| matches!(entry, Ok(LogEntry::Interval(_))));
    assert_eq!(lines.count(), 4);
}

#[test]
fn an_interval_may_start_at_zero() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.hlog");
    let mut writer = started(&path);
    let mut early = intervals().remove(1);
    early.start = Duration::ZERO;
    writer.interval(&early).unwrap();
    let recording = fs::read_to_string(path).unwrap();
    assert!(recording.contains("Tag=stage=net_rx;cpu=3,0.000,1.000,"), "{recording}");
}

#[test]
fn errors_name_the_file() {
    let error = Writer::create(Path::new("/nonexistent/run.hlog")).err().unwrap();
    assert_eq!(error.to_string(), "cannot create recording /nonexistent/run.hlog");
    let error = Writer::create(Path::new("/dev/full")).unwrap().start(&run()).unwrap_err();
    assert_eq!(error.to_string(), "cannot write recording /dev/full");
}

#[test]
fn devices_can_be_written() {
    let mut writer = started(Path::new("/dev/null"));
    writer.interval(&intervals().remove(0)).unwrap();
    writer.finish(&summary()).unwrap();
}
