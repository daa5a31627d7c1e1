//! Tests of the comparison against known results.

use std::time::Duration;

use super::*;
use crate::{
    model::{
        interval::Interval,
        method::Method,
        note::{CompareSide, Note},
        run::{Run, SelectedProbe, Transport},
        series::{Location, Series},
    },
    recording::writer::Writer,
};

const MS: u64 = 1_000_000;

/// 30 seconds of `net_rx_action`: runs of 1-2, 2-4, 4-8, 8-16 and 16-32 ms, and the number of all
/// runs; then the same with a smaller `tcp_rmem`.
const BEFORE: ([u64; 5], u64) = ([215, 30, 9, 5, 1], 3_685_271);
const AFTER: ([u64; 5], u64) = ([36, 3, 0, 0, 0], 3_567_235);

fn run(kernel: &str) -> Run {
    Run {
        host: "edge".into(),
        kernel: kernel.into(),
        started_at: "2026-01-02T03:04:05.006Z".into(),
        duration_s: 30.0,
        ifaces: Vec::new(),
        threshold_ns: MS,
        transport: Transport::Maps,
        probes: Vec::new(),
        sampling: crate::model::run::Sampling::default(),
        cpus: 1,
        version: "0.1.0".into(),
    }
}

/// Writes and reads a recording of `net_rx` on one CPU.
fn recorded(kernel: &str, seconds: impl IntoIterator<Item = Distribution>) -> LoadedRecording {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.hlog");
    let mut writer = Writer::create(&path).unwrap();
    writer.start(&run(kernel)).unwrap();
    for (at, distribution) in (0..).zip(seconds) {
        let series = Series::new(Stage::NetRx, Location::Cpu(0), distribution);
        let start = Duration::from_secs(at);
        writer.interval(&Interval::new(start, Duration::from_secs(1), vec![series])).unwrap();
    }
    LoadedRecording::read(&path).unwrap()
}

/// A recording with counts by power of two, spread over 30 seconds.
fn table((stalls, events): ([u64; 5], u64)) -> LoadedRecording {
    let mut seconds = vec![Distribution::default(); 30];
    let mut at = 0;
    for (power, count) in stalls.into_iter().enumerate() {
        for _ in 0..count {
            seconds[at % 30].record(((3 * MS) << power) / 2, MS, 0);
            // A step that is coprime to 30 spreads small and large counts evenly.
            at += 7;
        }
    }
    let quiet = events - stalls.iter().sum::<u64>();
    for (second, distribution) in seconds.iter_mut().enumerate() {
        let n = quiet / 30 + u64::from((second as u64) < quiet % 30);
        let mut typical = Distribution::default();
        typical.record(5000, MS, 0);
        typical.buckets[0].1 = n;
        distribution.add(&typical);
    }
    recorded("3.18", seconds)
}

#[test]
fn a_smaller_receive_buffer_improved() {
    let found = compare(&table(BEFORE), &table(AFTER));
    assert_eq!(found.verdict, Verdict::Improved);
    assert!(!found.weak);
    let [row] = &found.stages[..] else { panic!("{:?}", found.stages) };
    assert_eq!(row.events, [BEFORE.1, AFTER.1]);
    let [from_1ms, from_4ms, from_16ms] = &row.exceedance[..] else { panic!("{row:?}") };
    // 260 of 3,685,271 against 39 of 3,567,235.
    let times = from_1ms.ppm.before / from_1ms.ppm.after;
    assert!((times - 6.45).abs() < 0.01, "{times}");
    assert_eq!(from_1ms.method, Approach::Groups);
    assert!(from_1ms.decides && from_1ms.significant);
    assert_eq!((from_4ms.stalls, from_16ms.stalls), ([15, 0], [1, 0]));
    assert!(!from_4ms.decides && from_4ms.p.is_none());
    assert_eq!(compare(&table(AFTER), &table(BEFORE)).verdict, Verdict::Worse);
}

#[test]
fn a_recording_does_not_differ_from_itself() {
    for measured in [BEFORE, AFTER] {
        let found = compare(&table(measured), &table(measured));
        assert_eq!(found.verdict, Verdict::NoDifferenceShown);
        let test = &found.stages[0].exceedance[0];
        assert_eq!(test.ppm.ratio, Some(1.0));
        assert!(test.low.unwrap() < 1.0 && test.high.unwrap() > 1.0);
    }
}

#[test]
fn a_stage_without_events_is_zero_only_where_it_was_timed() {
    let mut stalled = table(BEFORE);
    let mut silent = recorded("6.1", (0..30).map(|_| Distribution::default()));
    for (before, after) in [(&stalled, &silent), (&silent, &stalled)] {
        let comparison = compare(before, after);
        assert_eq!(comparison.verdict, Verdict::NotComparable);
        assert!(comparison.notes.contains(&Note::NoCommonSeries), "{comparison:?}");
    }
    let timed = SelectedProbe {
        stage: Stage::NetRx,
        method: Some(Method::Tracepoint),
        at: String::new(),
        notes: Vec::new(),
    };
    for recording in [&mut stalled, &mut silent] {
        recording.totals.run.as_mut().unwrap().probes.push(timed.clone());
    }
    let comparison = compare(&stalled, &silent);
    assert_eq!(comparison.verdict, Verdict::Improved);
    assert_eq!(comparison.stages[0].exceedance[0].stalls, [260, 0]);
    assert_eq!(compare(&silent, &stalled).verdict, Verdict::Worse);
}

#[test]
fn other_differences_are_noted() {
    let second = |n: u64| {
        let mut distribution = Distribution::default();
        distribution.record(5000, MS, 0);
        distribution.buckets[0].1 = n;
        distribution.record(2 * MS, MS, 0);
        distribution
    };
    let before = recorded("6.1", (0..30).map(|_| second(1000)));
    let after = recorded("6.12", (0..30).map(|_| second(5000)));
    let found = compare(&before, &after);
    assert!(found.weak);
    // The same stalls per second: rarer per event only because there were more events.
    assert_eq!(found.verdict, Verdict::NoDifferenceShown);
    assert!(found.stages[0].exceedance[0].high.unwrap() < 1.0);
    assert!(!found.stages[0].exceedance[0].significant);
    let kernels = Note::KernelsDiffer { before: "6.1".into(), after: "6.12".into() };
    assert!(found.notes.contains(&kernels), "{found:?}");
    let three = recorded("6.1", (0..3).map(|_| second(1000)));
    let found = compare(&three, &after);
    assert!(found.weak);
    let short = Note::TooFewIntervals { side: CompareSide::Before, intervals: 3, needed: 5 };
    assert!(found.notes.contains(&short), "{found:?}");
}

/// One interval a side, as merged recordings and published tables have it.
#[test]
fn one_interval_a_side_is_possibly_an_improvement() {
    let one = |table: &LoadedRecording| {
        let mut sum = Distribution::default();
        table.parts.of_stage(Stage::NetRx).iter().for_each(|part| sum.add(part));
        recorded("3.18", [sum])
    };
    let (before, after) = (one(&table(BEFORE)), one(&table(AFTER)));
    let found = compare(&before, &after);
    assert_eq!((found.verdict, found.weak), (Verdict::Improved, true));
    let ppm = found.stages[0].exceedance[0].ppm;
    assert!((ppm.before / ppm.after - 6.45).abs() < 0.01, "{ppm:?}");
    for recording in [&before, &after] {
        assert_eq!(compare(recording, recording).verdict, Verdict::NoDifferenceShown);
    }
}

/// Windows of ten seconds, given by their stalls.
#[test]
fn windows_are_the_units() {
    let window = |stalls: u64| {
        recorded(
            "6.1",
            (0..10).map(|second| {
                let mut distribution = Distribution::default();
                distribution.record(5000, MS, 0);
                distribution.buckets[0].1 = 10_000;
                (0..stalls)
                    .filter(|at| at % 10 == second)
                    .for_each(|_| distribution.record(2 * MS, MS, 0));
                distribution
            }),
        )
    };
    let side = |stalls: &[u64]| stalls.iter().map(|n| window(*n)).collect::<Vec<_>>();
    let verdict = |before: &[u64], after: &[u64]| {
        let (before, after) = (side(before), side(after));
        let sides = [&before, &after].map(|side| side.iter().collect::<Vec<_>>());
        compare_units([&sides[0], &sides[1]], UnitKind::Window, sequential::LEVEL)
    };
    // Within each window nothing is as improbable by chance as this; between windows it is common.
    let uneven = verdict(&[200, 3, 90, 20], &[10, 120, 2, 40]);
    assert_eq!(uneven.verdict, Verdict::NoDifferenceShown);
    assert!(uneven.units_for_halving.unwrap() > 8);
    let clear = verdict(&[20, 30, 25, 18], &[2, 3, 0, 1]);
    assert_eq!((clear.verdict, clear.weak), (Verdict::Improved, false));
    let decision = clear.decision.unwrap();
    assert_eq!((decision.method, &*decision.name), (Approach::Regression, "stage=net_rx"));
    assert!(decision.high.unwrap() < 0.5, "{decision:?}");
    let few = verdict(&[20, 30, 25], &[0]);
    assert_eq!(few.verdict, Verdict::NotComparable);
    assert!(few.notes.contains(&Note::TooFewUnits { before: 3, after: 1 }));
}
