//! Tests of merging.

use std::fs;

use latency_common::stage::Stage;
use proptest::prelude::*;

use super::*;
use crate::model::{
    cost::{DisabledStage, KernelCost, SelfCost},
    distribution::Distribution,
    ledger::Ledger,
    method::Method,
    series::{Location, labels::Labels},
    stall::{
        Stall,
        batch::{LocatedStack, Stack, StallBatch},
        time::{CpuSteal, LocatedTime, StallTime},
    },
    summary::{Stalls, Summary},
};

/// A recording of a host: durations by CPU, interval by interval.
#[derive(Clone, Debug)]
struct Made {
    host: String,
    method: Method,
    finish: bool,
    intervals: Vec<Vec<(u32, Vec<u64>)>>,
}

fn made() -> impl Strategy<Value = Made> {
    let durations = prop::collection::vec(0..60_000_000_000_u64, 0..8);
    let interval = prop::collection::vec((0..3_u32, durations), 0..3);
    let method = prop_oneof![Just(Method::Tracepoint), Just(Method::Fentry)];
    ("[ab]", method, any::<bool>(), prop::collection::vec(interval, 0..3))
        .prop_map(|(host, method, finish, intervals)| Made { host, method, finish, intervals })
}

fn run(made: &Made) -> Run {
    Run {
        host: made.host.clone(),
        kernel: "6.12.43".into(),
        started_at: "2026-01-02T03:04:05.006Z".into(),
        duration_s: made.intervals.len() as f64,
        ifaces: Vec::new(),
        threshold_ns: DEFAULT_THRESHOLD_NS,
        transport: Transport::Maps,
        probes: vec![SelectedProbe {
            stage: Stage::NetRx,
            method: Some(made.method),
            at: "net_rx_action".into(),
            notes: Vec::new(),
        }],
        sampling: crate::model::run::Sampling::default(),
        cpus: 4,
        version: "0.1.0".into(),
    }
}

fn stall(cpu: u32, ns: u64) -> Stall {
    Stall {
        at: "2026-01-02T03:04:06.000Z".into(),
        start_ns: 0,
        end_ns: ns,
        stage: Stage::NetRx,
        cpu,
        labels: Labels::default(),
        duration_ns: ns,
        net_rx: None,
        interference: None,
        unsampled_ns: None,
        sampled_ns: None,
        steal_ns: None,
        samples: 0,
        culprits: Vec::new(),
        stacks: Vec::new(),
    }
}

fn time(stalls: &[Stall]) -> LocatedTime {
    let stalled_ns = stalls.iter().map(|stall| stall.duration_ns).sum();
    let time = StallTime {
        stalls: stalls.len() as u64,
        stalled_ns,
        unsampled_ns: stalled_ns / 3,
        sampled_ns: stalled_ns / 2,
        irq_ns: stalled_ns / 7,
        unclocked_ns: stalled_ns / 11,
    };
    LocatedTime { stage: Some(Stage::NetRx.into()), cpu: Some(3), time, ..LocatedTime::default() }
}

fn steal(stalls: &[Stall]) -> Vec<CpuSteal> {
    let of = |stall: &Stall| CpuSteal {
        host: None,
        cpu: stall.cpu,
        steal_ns: stall.duration_ns,
        stalls: 1,
        stalls_then: 1,
    };
    stalls.iter().map(of).collect()
}

fn write(made: &Made, path: &Path) {
    let run = run(made);
    let mut writer = Writer::create(path).unwrap();
    writer.start(&run).unwrap();
    for (at, cpus) in made.intervals.iter().enumerate() {
        let mut series: BTreeMap<u32, Distribution> = BTreeMap::new();
        let mut stalls = Vec::new();
        for (cpu, durations) in cpus {
            for ns in durations {
                series.entry(*cpu).or_default().record(*ns, DEFAULT_THRESHOLD_NS, 1);
                stalls.push(stall(*cpu, *ns));
            }
        }
        let series = series
            .into_iter()
            .map(|(cpu, distribution)| Series::new(Stage::NetRx, Location::Cpu(cpu), distribution));
        let stack = Stack { frames: vec![made.host.clone()], count: stalls.len() as u64 };
        let stacks = vec![LocatedStack { stack, ..LocatedStack::default() }];
        let interval = Interval {
            start: Duration::from_secs(at as u64),
            duration: Duration::from_secs(1),
            series: series.collect(),
            steal: Some(steal(&stalls)),
            merged: None,
            batch: StallBatch { times: vec![time(&stalls)], stalls, collapses: Vec::new(), stacks },
        };
        writer.interval(&interval).unwrap();
    }
    if made.finish {
        let summary = Summary {
            dropped_output_lines: None,
            run,
            series: Vec::new(),
            stalls: Stalls::default(),
            ledger: Ledger { balanced: true, ..Ledger::default() },
            self_cost: SelfCost {
                user_cpu_s: 0.1,
                startup_cpu_s: 0.2,
                kernel: KernelCost { disabled: vec![disabled(made)], ..KernelCost::default() },
                ..SelfCost::default()
            },
        };
        writer.finish(&summary).unwrap();
    }
}

/// A stage that was disabled after the last interval.
fn disabled(made: &Made) -> DisabledStage {
    let after_s = made.intervals.len() as f64;
    DisabledStage { stage: Stage::NetRx, after_s, share: 0.02, limit: 0.01 }
}

/// Merges files in `directory` into another one there.
fn merged(directory: &Path, names: &[&str], into: &str) -> String {
    let mut merger = Merger::new(Duration::from_secs(1));
    for name in names {
        merger.add(&directory.join(name), None).unwrap();
    }
    merger.write(Writer::create(&directory.join(into)).unwrap(), &mut |_| Ok(())).unwrap();
    fs::read_to_string(directory.join(into)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn order_and_grouping_do_not_matter(a in made(), b in made(), c in made()) {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        for (made, name) in [(&a, "a"), (&b, "b"), (&c, "c")] {
            write(made, &at.join(name));
        }
        let all = merged(at, &["a", "b", "c"], "abc");
        prop_assert_eq!(&merged(at, &["c", "a", "b"], "cab"), &all);
        merged(at, &["a", "b"], "ab");
        prop_assert_eq!(&merged(at, &["ab", "c"], "ab_c"), &all);
        merged(at, &["b", "c"], "bc");
        prop_assert_eq!(&merged(at, &["bc", "a"], "bc_a"), &all);
        prop_assert_eq!(&merged(at, &["abc"], "again"), &all);
    }

    #[test]
    fn disabled_stages_are_kept(mut a in made(), mut b in made()) {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        (a.finish, b.finish) = (true, true);
        write(&a, &at.join("a"));
        write(&b, &at.join("b"));
        merged(at, &["a", "b"], "ab");
        let merged = RecordingTotals::read(&at.join("ab")).unwrap();
        let disabled = merged.end.unwrap().self_cost.kernel.disabled;
        let ends: Vec<f64> = disabled.iter().map(|stage| stage.after_s).collect();
        let (a, b) = (a.intervals.len() as f64, b.intervals.len() as f64);
        prop_assert_eq!(ends, vec![a.min(b), a.max(b)]);
    }

    #[test]
    fn the_sum_is_one_histogram_of_all_values(all in prop::collection::vec(made(), 1..4)) {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let names: Vec<String> = (0..all.len()).map(|n| n.to_string()).collect();
        let mut expected: BTreeMap<String, hdrhistogram::Histogram<u64>> = BTreeMap::new();
        for (made, name) in all.iter().zip(&names) {
            write(made, &at.join(name));
            for (cpu, durations) in made.intervals.iter().flatten() {
                for ns in durations {
                    let tag = format!("stage=net_rx;cpu={cpu};host={}", made.host);
                    let histogram = expected.entry(tag)
                        .or_insert_with(crate::model::distribution::empty_histogram);
                    histogram.record(*ns).unwrap();
                }
            }
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        merged(at, &names, "sum");
        let totals = RecordingTotals::read(&at.join("sum")).unwrap().totals;
        let found: BTreeMap<String, hdrhistogram::Histogram<u64>> =
            totals.series.iter().map(|(key, sum)| (key.tag(), sum.distribution.histogram())).collect();
        prop_assert_eq!(found, expected);
        // The exact sums and maxima, which histograms do not have.
        let values = all.iter().flat_map(|m| m.intervals.iter().flatten()).flat_map(|(_, v)| v);
        let sum: u64 = totals.series.values().map(|total| total.distribution.sum_ns).sum();
        prop_assert_eq!(sum, values.clone().sum::<u64>());
        let max = totals.series.values().map(|total| total.distribution.max_ns).max().unwrap_or(0);
        prop_assert_eq!(max, values.copied().max().unwrap_or(0));
        prop_assert_eq!(totals.stalls.longest().first().map_or(0, |stall| stall.duration_ns), max);
    }
}

#[test]
fn thresholds_that_differ_are_refused_with_both_files() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (directory.path().join("a"), directory.path().join("b"));
    let made = Made {
        host: "web-17".into(),
        method: Method::Fentry,
        finish: false,
        intervals: vec![vec![(0, vec![1])]],
    };
    write(&made, &a);
    let text = fs::read_to_string(&a).unwrap();
    fs::write(&b, text.replace("\"threshold_ns\":1000000", "\"threshold_ns\":2000000")).unwrap();
    let mut merger = Merger::new(Duration::from_secs(1));
    merger.add(&a, None).unwrap();
    let error = merger.add(&b, None).unwrap_err().to_string();
    let files = (a.display(), b.display());
    assert_eq!(
        error,
        format!(
            "{} has a threshold of 2000000 ns and {} of 1000000 ns: cannot be merged",
            files.1, files.0
        )
    );
}
