//! Tests of the reader.

use std::{fs, sync::LazyLock};

use proptest::prelude::*;

use super::*;
use crate::{
    model::{cost::SelfCost, interval::Interval, ledger::Ledger, run::Transport, summary::*},
    recording::writer::Writer,
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
        sampling: crate::model::run::Sampling::default(),
        cpus: 4,
        version: "0.1.0".into(),
    }
}

fn settings() -> Settings {
    let rmem = ("net.ipv4.tcp_rmem".to_owned(), "4096 131072 33554432".to_owned());
    Settings { sysctls: [rmem].into(), ..Settings::default() }
}

fn of(values: impl IntoIterator<Item = u64>) -> Distribution {
    let mut distribution = Distribution::default();
    for value in values {
        distribution.record(value, THRESHOLD_NS, 2);
    }
    distribution
}

/// Two intervals of a CPU and a queue whose tag does not say everything.
fn series() -> [Vec<(Series, Distribution)>; 2] {
    let cpu = Series { stage: Stage::NetRx, owner: Owner::Cpu(3) };
    let queue = Queue::Device {
        iface: "eth0".into(),
        netns: None,
        queue: Some(2),
        napi_id: 515,
        irq: Some(31),
    };
    let queue = Series { stage: Stage::NapiPoll, owner: Owner::Queue(queue) };
    [
        vec![(cpu.clone(), of([0, 255, 70_000_000_000])), (queue.clone(), of([7, 21_400_123]))],
        vec![(cpu, of([1_000_001])), (queue, of([8]))],
    ]
}

fn written(finish: bool) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.hlog");
    let mut writer = Writer::create(&path).unwrap();
    writer.begin(&run()).unwrap();
    writer.settings(&settings()).unwrap();
    let mut began_at = humantime::parse_rfc3339(&run().started_at).unwrap();
    for series in series() {
        writer
            .interval(&Interval {
                began_at,
                duration: Duration::from_secs(1),
                series,
                stalls: Vec::new(),
                collapses: Vec::new(),
                stacks: vec![Stack { frames: vec!["tcp_collapse".into()], count: 3 }],
            })
            .unwrap();
        began_at += Duration::from_secs(1);
    }
    if finish {
        writer
            .finish(&Summary {
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

type Read = (Vec<Entry>, Vec<String>);

fn read(bytes: &[u8]) -> Result<Read, ReadError> {
    let input = std::io::Cursor::new(bytes.to_vec());
    let mut reader = Reader::of(Path::new("run.hlog"), Box::new(input));
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        entries.push(entry);
    }
    assert!(reader.next_entry()?.is_none());
    Ok((entries, reader.remarks().to_vec()))
}

fn error(text: &str) -> String {
    read(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_recording_reads_back_as_it_was_written() {
    let (entries, remarks) = read(&written(true)).unwrap();
    assert_eq!(remarks, [""; 0]);
    let [
        Entry::Run(head),
        Entry::Settings(set),
        Entry::Interval(first),
        Entry::Interval(second),
        Entry::Summary(end),
    ] = &entries[..]
    else {
        panic!("{entries:?}")
    };
    assert_eq!(head, &run());
    assert_eq!(set, &settings());
    assert_eq!(end.run, run());
    for (interval, expected) in [first, second].into_iter().zip(series()) {
        let read: Vec<_> = interval.series.iter().map(|(s, d)| (s.clone(), d.clone())).collect();
        let mut expected: Vec<_> =
            expected.into_iter().map(|(s, d)| (Source::Series(s), d)).collect();
        expected.sort_by(|(a, _), (b, _)| a.cmp(b));
        assert_eq!(read, expected);
        assert_eq!(interval.stacks[0].count, 3);
    }
    assert_eq!((first.start, second.start), (Duration::ZERO, Duration::from_secs(1)));
}

#[test]
fn a_killed_run_has_no_summary_and_no_remark() {
    let (entries, remarks) = read(&written(false)).unwrap();
    assert_eq!((entries.len(), remarks.len()), (4, 0));
}

#[test]
fn cut_at_every_byte_it_reads_up_to_the_last_whole_interval() {
    let whole = written(true);
    let (all, _) = read(&whole).unwrap();
    let count = |entries: &[Entry]| {
        entries.iter().filter(|entry| matches!(entry, Entry::Interval(_))).count()
    };
    let mut most = 0;
    for end in 0..whole.len() {
        let (entries, remarks) = read(&whole[..end]).unwrap_or_else(|e| panic!("{end}: {e}"));
        // More bytes never give fewer intervals, and what is given is whole.
        assert!(count(&entries) >= most, "{end}");
        most = count(&entries);
        for (entry, expected) in entries.iter().zip(&all) {
            assert_eq!(format!("{entry:?}"), format!("{expected:?}"));
        }
        // Before the header is read, a line without its end may be a foreign log's last one.
        let in_header = most == 0 && entries.len() <= 1;
        let on_boundary = whole[..end].last().is_none_or(|byte| *byte == b'\n');
        assert!(in_header || on_boundary || !remarks.is_empty(), "{end}: nothing is said");
    }
    assert_eq!(most, 2);
}

#[test]
fn corrupt_lines_are_told_with_file_and_line() {
    let head = String::from_utf8(written(false)).unwrap();
    let lines = head.lines().count();
    for (line, what) in [
        ("garbage", "expected 4 fields of a histogram, found 1"),
        ("Tag=a;0.0", "tag without a line"),
        ("Tag=a,0.0,x,1.0,HIST", "length \"x\" is not a number of seconds"),
        ("Tag=a,-1,1,1.0,HIST", "start \"-1\" is not a number of seconds"),
        ("Tag=a,0,1,1.0,???", "histogram is not base64"),
        ("Tag=a,0,1,1.0,SElTVDAwMDA=", "no HdrHistogram V2 data"),
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
fn an_interval_must_have_its_histograms_and_books() {
    let whole = String::from_utf8(written(false)).unwrap();
    let without: Vec<&str> =
        whole.lines().filter(|line| !line.starts_with("Tag=stage=net_rx")).collect();
    let found = error(&(without.join("\n") + "\n"));
    assert!(found.ends_with("interval lacks 1 of its histograms"), "{found}");
    let found = error(&whole.replacen("Tag=stage=net_rx", "Tag=stage=rx_wait", 1));
    assert!(found.contains("interval without an entry for \"stage=rx_wait;cpu=3\""), "{found}");
    let found = error(&whole.replacen("\"over_threshold\":1", "\"over_threshold\":5", 1));
    assert!(found.contains("has 5 stalls in"), "{found}");
}

#[test]
fn what_is_new_is_skipped_and_a_newer_version_refused() {
    let whole = String::from_utf8(written(true)).unwrap();
    let (expected, _) = read(whole.as_bytes()).unwrap();
    let new = "#[latency-user] {\"kind\":\"weather\",\"schema_version\":1,\"rain\":true}\n\
               #[latency-user] {\"kind\":\"stall\",\"schema_version\":1,\"stage\":\"xdp\"}\n\
               # somebody's note\n";
    let text = whole.replacen("Tag=", &format!("{new}Tag="), 1);
    let text = text.replace("\"threshold_ns\":", "\"mood\":[{}],\"threshold_ns\":");
    let (entries, _) = read(text.as_bytes()).unwrap();
    assert_eq!(format!("{entries:?}"), format!("{expected:?}"));
    let newer = whole.replacen("\"schema_version\":1", "\"schema_version\":2", 1);
    assert_eq!(
        error(&newer),
        "run.hlog:3: schema version 2 is newer than 1, the newest that this program reads: \
         a newer latency-user is needed"
    );
}

#[test]
fn foreign_logs_are_plain_series() {
    let whole = String::from_utf8(written(false)).unwrap();
    let payload = whole.lines().find(|line| line.starts_with("Tag=stage=net_rx")).unwrap();
    let payload = payload.rsplit_once(',').unwrap().1;
    let log = format!(
        "#[Histogram log format version 1.3]\n\
         #[StartTime: 1767323045.500 (seconds since epoch), somewhen]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n\
         1767323045.500,1.000,0.1,{payload}\n\
         Tag=get,1767323045.500,1.000,0.1,{payload}\n\
         1767323047.000,1.000,0.1,{payload}"
    );
    let (entries, remarks) = read(log.as_bytes()).unwrap();
    assert_eq!(remarks, [""; 0]);
    let [Entry::Interval(first), Entry::Interval(second)] = &entries[..] else {
        panic!("{entries:?}")
    };
    let tags: Vec<_> = first.series.iter().map(|(source, _)| source.clone()).collect();
    assert_eq!(tags, [Source::Plain(String::new()), Source::Plain("get".into())]);
    assert_eq!((first.start, second.start), (Duration::ZERO, Duration::from_millis(1500)));
    assert_eq!(first.series[0].1.count(), 3);
    // Stamps counted from the start, as other writers have them.
    let (entries, _) =
        read(log.replace("17673230", "").replacen("45.5", "1767323045.5", 1).as_bytes()).unwrap();
    assert_eq!(entries.len(), 2);
    let cut = &log[..log.len() - 7];
    let (entries, remarks) = read(cut.as_bytes()).unwrap();
    assert_eq!(entries.len(), 1);
    assert!(remarks[0].starts_with("run.hlog:6: the last line is cut short"), "{remarks:?}");
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
