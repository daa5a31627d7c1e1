//! Tests of the reader.

use std::{fs, sync::LazyLock};

use latency_common::stage::Stage;
use proptest::prelude::*;

use super::*;
use crate::{
    model::{
        cost::SelfCost,
        ledger::Ledger,
        run::{SampleWhen, Sampling, Transport},
        series::{Location, Queue, QueueId, attrs::NamedBy, labels::Labels},
        stall::{
            batch::{LocatedStack, Stack},
            time::{CpuSteal, StallTime},
        },
        summary::Stalls,
    },
    recording::{encoder::Encoder, writer::Writer},
};

const THRESHOLD_NS: u64 = 1_000_000;

fn run() -> Run {
    Run {
        host: "web-17".into(),
        kernel: "6.12.43".into(),
        started_at: "2026-01-02T03:04:05.006Z".into(),
        duration_s: 2.0,
        ifaces: vec!["eth0".into()],
        threshold_ns: THRESHOLD_NS,
        transport: Transport::Maps,
        probes: Vec::new(),
        sampling: Sampling::default(),
        cpus: 4,
        version: "0.1.0".into(),
    }
}

fn settings() -> HostSettings {
    let rmem = ("net.ipv4.tcp_rmem".to_owned(), "4096 131072 33554432".to_owned());
    HostSettings { sysctls: [rmem].into(), ..HostSettings::default() }
}

fn of(values: impl IntoIterator<Item = u64>) -> Distribution {
    let mut distribution = Distribution::default();
    for value in values {
        distribution.record(value, THRESHOLD_NS, 2);
    }
    distribution
}

/// Two intervals of a CPU and of a queue with attributes that its tag does not hold.
fn intervals() -> [Interval; 2] {
    let cpu = |distribution| Series::new(Stage::NetRx, Location::Cpu(3), distribution);
    let queue = |distribution| {
        let queue = Queue::Device { iface: "eth0".into(), netns: None, id: QueueId::Rx(2) };
        let attrs = QueueAttrs { napi_id: Some(515), irq: Some(31), named_by: Some(NamedBy::Irq) };
        Series { attrs, ..Series::new(Stage::NapiPoll, Location::Queue(queue), distribution) }
    };
    let stack = LocatedStack {
        stack: Stack { frames: vec!["tcp_collapse".into()], count: 3 },
        stage: Some(Stage::NetRx.into()),
        labels: Labels::default(),
    };
    let time = LocatedTime {
        stage: Some(Stage::NetRx.into()),
        cpu: Some(3),
        labels: Labels::default(),
        time: StallTime {
            stalls: 1,
            stalled_ns: 9,
            unsampled_ns: 5,
            sampled_ns: 3,
            irq_ns: 1,
            unclocked_ns: 0,
        },
    };
    let batch = StallBatch { stacks: vec![stack], times: vec![time], ..StallBatch::default() };
    let steal = Some(vec![CpuSteal { cpu: 3, steal_ns: 7, ..CpuSteal::default() }]);
    let second = Duration::from_secs(1);
    let interval = |start, series| Interval {
        start,
        duration: second,
        series,
        batch: batch.clone(),
        steal: steal.clone(),
        merged: None,
    };
    [
        interval(
            Duration::ZERO,
            vec![cpu(of([0, 255, 70_000_000_000])), queue(of([7, 21_400_123]))],
        ),
        interval(second, vec![cpu(of([1_000_001])), queue(of([8]))]),
    ]
}

fn written(finish: bool) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.hlog");
    let mut writer = Writer::create(&path).unwrap();
    writer.start(&run()).unwrap();
    writer.settings(&settings()).unwrap();
    for interval in intervals() {
        writer.interval(&interval).unwrap();
    }
    if finish {
        writer
            .finish(&Summary {
                dropped_output_lines: None,
                run: run(),
                series: Vec::new(),
                stalls: Stalls::default(),
                ledger: Ledger { balanced: true, ..Ledger::default() },
                self_cost: SelfCost::default(),
            })
            .unwrap();
    }
    fs::read(path).unwrap()
}

type Read = (Vec<RecordingEntry>, Vec<Note>);

fn read(bytes: &[u8]) -> Result<Read, ReadError> {
    let input = std::io::Cursor::new(bytes.to_vec());
    let mut reader = Reader::from_input(Path::new("run.hlog"), Box::new(input));
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        entries.push(entry);
    }
    assert!(reader.next_entry()?.is_none());
    Ok((entries, reader.notes().to_vec()))
}

fn error(text: &str) -> String {
    read(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn more_tags_than_any_machine_has_are_refused() {
    let values = Encoder::new().values(&of([1_000]), false).unwrap();
    let line = |tag: usize| format!("Tag=t{tag},0.000,1.000,{values}\n");
    let error = error(&(0..=MAX_TAGS).map(line).collect::<String>());
    assert!(error.contains("more than 100000 different tags"), "{error}");
    assert!(error.contains(&format!(":{}:", MAX_TAGS + 1)), "{error}");
}

#[test]
fn a_recording_reads_back_as_it_was_written() {
    let (entries, notes) = read(&written(true)).unwrap();
    assert_eq!(notes, []);
    let [
        RecordingEntry::Run(head),
        RecordingEntry::Settings(set),
        RecordingEntry::Interval(first),
        RecordingEntry::Interval(second),
        RecordingEntry::Summary(end),
    ] = &entries[..]
    else {
        panic!("{entries:?}")
    };
    assert_eq!(head, &run());
    assert_eq!(set, &settings());
    assert_eq!(end.run, run());
    for (interval, expected) in [first, second].into_iter().zip(intervals()) {
        let mut read = interval.clone();
        read.series.sort_by(|a, b| a.id.cmp(&b.id));
        let series = expected.series.into_iter().map(|live| Series {
            id: SeriesKey::Known(live.id),
            attrs: live.attrs,
            distribution: live.distribution,
        });
        assert_eq!(read.series, series.collect::<Vec<_>>());
        assert_eq!(read.batch, expected.batch);
    }
    assert_eq!((first.start, second.start), (Duration::ZERO, Duration::from_secs(1)));
}

/// A stall without time shares has them estimated if the clock of its run always ticked.
#[test]
fn what_a_late_clock_did_not_see_is_not_estimated() {
    for (when, is_estimated) in [(SampleWhen::Always, true), (SampleWhen::Stalled, false)] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.hlog");
        let mut writer = Writer::create(&path).unwrap();
        let sampling = Sampling { hz: 997, when, ..Sampling::default() };
        writer.start(&Run { sampling, ..run() }).unwrap();
        writer.settings(&settings()).unwrap();
        let [mut interval, _] = intervals();
        interval.batch.stalls.push(
            serde_json::from_str(
                r#"{"at": "", "start_ns": 0, "end_ns": 8000000, "stage": "net_rx", "cpu": 3,
                    "duration_ns": 8000000, "samples": 0}"#,
            )
            .unwrap(),
        );
        writer.interval(&interval).unwrap();
        let (entries, _) = read(&fs::read(path).unwrap()).unwrap();
        let stalls: Vec<bool> = entries
            .iter()
            .filter_map(|entry| match entry {
                RecordingEntry::Interval(interval) => Some(&interval.batch.stalls),
                _ => None,
            })
            .flatten()
            .map(|stall| stall.unsampled_ns.is_some())
            .collect();
        assert_eq!(stalls, [is_estimated], "{when:?}");
    }
}

#[test]
fn a_killed_run_has_no_summary_and_no_note() {
    let (entries, notes) = read(&written(false)).unwrap();
    assert_eq!((entries.len(), notes.len()), (4, 0));
}

#[test]
fn cut_at_every_byte_it_reads_up_to_the_last_complete_interval() {
    let recording = written(true);
    let (all, _) = read(&recording).unwrap();
    let count = |entries: &[RecordingEntry]| {
        entries.iter().filter(|entry| matches!(entry, RecordingEntry::Interval(_))).count()
    };
    let mut most = 0;
    // The first line tells that it is a log.
    let first = recording.iter().position(|byte| *byte == b'\n').unwrap();
    for end in first + 1..recording.len() {
        let (entries, notes) = read(&recording[..end]).unwrap_or_else(|e| panic!("{end}: {e}"));
        // More bytes never give fewer intervals, and each of them is complete.
        assert!(count(&entries) >= most, "{end}");
        most = count(&entries);
        for (entry, expected) in entries.iter().zip(&all) {
            assert_eq!(format!("{entry:?}"), format!("{expected:?}"));
        }
        // Before the header is read, a line without its end may be a foreign log's last one.
        let in_header = most == 0 && entries.len() <= 1;
        let on_boundary = recording[..end].last().is_none_or(|byte| *byte == b'\n');
        assert!(in_header || on_boundary || !notes.is_empty(), "{end}: nothing is noted");
    }
    assert_eq!(most, 2);
}

#[test]
fn corrupt_lines_are_reported_with_file_and_line() {
    let head = String::from_utf8(written(false)).unwrap();
    let lines = head.lines().count();
    for (line, what) in [
        ("garbage", "expected 4 fields of a histogram, found 1"),
        ("Tag=a;0.0", "tag without a line"),
        ("Tag=a,0.0,x,1.0,HIST", "length \"x\" is not a number of seconds"),
        ("Tag=a,-1,1,1.0,HIST", "start \"-1\" is not a number of seconds"),
        ("Tag=a,0,1,1.0,???", "histogram is not base64"),
        ("Tag=a,0,1,1.0,SElTVDAwMDA=", "no HdrHistogram data (V0, V1 or V2): cookie 0x48495354"),
        ("#[latency-user] {", "comment object: EOF"),
        ("#[latency-user] {\"kind\":\"x\"}", "comment object: missing field `schema_version`"),
        (
            "#[latency-user] {\"kind\":\"interval\",\"schema_version\":1,\"start_s\":-1.0,\
             \"duration_s\":1.0,\"series\":{}}",
            "start_s -1.0 is not a number of seconds",
        ),
        (
            "#[latency-user] {\"kind\":\"interval\",\"schema_version\":1,\"start_s\":1e300,\
             \"duration_s\":1.0,\"series\":{}}",
            "start_s 1e300 is not",
        ),
    ] {
        let error = error(&format!("{head}{line}\n"));
        assert!(error.starts_with(&format!("run.hlog:{}: {what}", lines + 1)), "{error}");
    }
}

#[test]
fn an_interval_must_have_its_histograms_and_their_entries() {
    let recording = String::from_utf8(written(false)).unwrap();
    let without: Vec<&str> =
        recording.lines().filter(|line| !line.starts_with("Tag=stage=net_rx")).collect();
    let found = error(&(without.join("\n") + "\n"));
    assert!(found.ends_with("interval lacks 1 of its histograms"), "{found}");
    let found = error(&recording.replacen("Tag=stage=net_rx", "Tag=stage=rx_wait", 1));
    assert!(found.contains("interval without an entry for \"stage=rx_wait;cpu=3\""), "{found}");
    let found = error(&recording.replacen("\"over_threshold\":1", "\"over_threshold\":5", 1));
    assert!(found.contains("has 5 stalls in"), "{found}");
}

#[test]
fn unknown_objects_are_skipped_and_a_newer_version_is_refused() {
    let recording = String::from_utf8(written(true)).unwrap();
    let (expected, _) = read(recording.as_bytes()).unwrap();
    let new = "#[latency-user] {\"kind\":\"weather\",\"schema_version\":1,\"rain\":true}\n\
               #[latency-user] {\"kind\":\"stall\",\"schema_version\":1,\"stage\":\"xdp\"}\n\
               # somebody's note\n";
    let text = recording.replacen("Tag=", &format!("{new}Tag="), 1);
    let text = text.replace("\"threshold_ns\":", "\"mood\":[{}],\"threshold_ns\":");
    let (entries, _) = read(text.as_bytes()).unwrap();
    assert_eq!(format!("{entries:?}"), format!("{expected:?}"));
    let newer = recording.replacen("\"schema_version\":2", "\"schema_version\":3", 1);
    assert_eq!(
        error(&newer),
        "run.hlog:3: schema version 3 is newer than 2, the newest that this program reads: \
         a newer latency-user is needed"
    );
}

#[test]
fn logs_of_other_programs_are_foreign_series() {
    let recording = String::from_utf8(written(false)).unwrap();
    let payload = recording.lines().find(|line| line.starts_with("Tag=stage=net_rx")).unwrap();
    let payload = payload.rsplit_once(',').unwrap().1;
    let log = format!(
        "#[Histogram log format version 1.3]\n\
         #[StartTime: 1767323045.500 (seconds since epoch), somewhen]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n\
         1767323045.500,1.000,0.1,{payload}\n\
         Tag=get,1767323045.500,1.000,0.1,{payload}\n\
         1767323047.000,1.000,0.1,{payload}"
    );
    let (entries, notes) = read(log.as_bytes()).unwrap();
    assert_eq!(notes, []);
    let [RecordingEntry::Interval(first), RecordingEntry::Interval(second)] = &entries[..] else {
        panic!("{entries:?}")
    };
    let tags: Vec<_> = first.series.iter().map(|series| series.id.clone()).collect();
    assert_eq!(tags, [SeriesKey::Foreign(String::new()), SeriesKey::Foreign("get".into())]);
    assert_eq!((first.start, second.start), (Duration::ZERO, Duration::from_millis(1500)));
    assert_eq!(first.series[0].distribution.count(), 3);
    // Timestamps relative to the start, as other writers have them.
    let (entries, _) =
        read(log.replace("17673230", "").replacen("45.5", "1767323045.5", 1).as_bytes()).unwrap();
    assert_eq!(entries.len(), 2);
    let cut = &log[..log.len() - 7];
    let (entries, notes) = read(cut.as_bytes()).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(notes[0].code(), "line-cut-short");
    assert!(notes[0].to_string().starts_with("run.hlog:6: the last line"), "{notes:?}");
}

proptest! {
    #[test]
    fn damage_never_panics(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        finish in any::<bool>(),
    ) {
        static WRITTEN: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [false, true].map(written));
        let mut bytes = WRITTEN[usize::from(finish)].clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = read(&bytes);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
    }
}
