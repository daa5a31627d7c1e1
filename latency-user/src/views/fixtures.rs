//! Invented runs for the tests of views.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use latency_common::{
    cpu_state::{RecordLedger, StageLedger},
    stage::Stage,
};

use crate::model::{
    cost::{KernelCost, SelfCost},
    distribution::Distribution,
    interval::Interval,
    ledger::{Ledger, StageCounts, UserCounts},
    method::Method,
    note::Note,
    run::{Run, Sampling, SelectedProbe, Transport},
    series::{Location, Queue, QueueId, Series, attrs::QueueAttrs, labels::Labels},
    stall::{Stall, culprit::Culprit},
    summary::{SeriesSummary, Stalls, Summary},
};

/// The threshold of all fixtures, ns.
pub(super) const THRESHOLD_NS: u64 = 1_000_000;

/// `count` durations around `ns`, followed by `tail`.
pub(super) fn durations(count: u64, ns: u64, tail: &[u64]) -> Distribution {
    let mut distribution = Distribution::default();
    for n in 0..count {
        distribution.record(ns / 2 + n * 7919 % ns, THRESHOLD_NS, 3);
    }
    for ns in tail {
        distribution.record(*ns, THRESHOLD_NS, 64);
    }
    distribution
}

pub(super) fn cpu(stage: Stage, cpu: u32, distribution: Distribution) -> Series {
    Series::new(stage, Location::Cpu(cpu), distribution)
}

pub(super) fn queue(
    iface: &str,
    number: Option<u32>,
    netns: Option<u32>,
    distribution: Distribution,
) -> Series {
    let napi_id = 513 + number.unwrap_or_default();
    let id = number.map_or(QueueId::Napi(napi_id), QueueId::Rx);
    let at = Location::Queue(Queue::Device { iface: iface.into(), netns, id });
    let irq = number.map(|number| 29 + number);
    let attrs = QueueAttrs { napi_id: Some(napi_id), irq, named_by: None };
    Series { attrs, ..Series::new(Stage::NapiPoll, at, distribution) }
}

pub(super) fn irq(number: u32, name: &str, cpu: u32, distribution: Distribution) -> Series {
    let at = Location::Irq { number: Some(number), name: Some(name.into()), cpu };
    Series::new(Stage::Irq, at, distribution)
}

/// Four CPUs and four queues; CPU 1 and queue 2 stalled.
pub(super) fn stalled() -> Vec<Series> {
    let long: Vec<u64> = (0..37).map(|n| 1_400_000 + n * 555_555).collect();
    let mut all = Vec::new();
    for n in 0..4 {
        let tail: &[u64] = if n == 1 { &long } else { &[] };
        all.push(cpu(Stage::RxWait, n, durations(9000, 2100, &tail[..tail.len() / 3])));
        all.push(cpu(Stage::NetRx, n, durations(9000, 8100, tail)));
    }
    for n in 0..4 {
        let tail: &[u64] = if n == 2 { &long } else { &[] };
        all.push(queue("eth0", Some(n), None, durations(7000, 7100, tail)));
        all.push(irq(29 + n, &format!("eth0-TxRx-{n}"), n, durations(6000, 900, &[])));
    }
    let backlog = Location::Queue(Queue::Backlog { cpu: 0 });
    all.push(Series::new(Stage::NapiPoll, backlog, durations(300, 4000, &[])));
    all.push(cpu(Stage::TcpCollapse, 1, durations(50, 90_000, &long[25..])));
    all
}

/// Everything at its longest: 256 CPUs, queues with 15-character names in other namespaces.
pub(super) fn awkward() -> Vec<Series> {
    let mut all = Vec::new();
    for n in 0..256 {
        let long = [u64::from(n) << 29, 68_000_000_000];
        let tail = if n % 9 == 0 { &long[..] } else { &[] };
        all.push(cpu(Stage::NetRx, n, durations(5, 12_345 + u64::from(n), tail)));
        let name = format!("enp129s0f1np{n:03}");
        let (number, netns) = ((n % 2 == 0).then_some(n), Some(4_026_532_211 + n));
        all.push(queue(&name, number, netns, durations(2, 33_333, tail)));
        let name = format!("mlx5_comp{n}@pci:0000:c1:00.1 \x1b[31mé");
        all.push(irq(1000 + n, &name, n, durations(2, 33_333, tail)));
    }
    for series in &mut all {
        if let Some(first) = series.distribution.buckets.first_mut() {
            first.1 += 987_654_321;
        }
    }
    all
}

/// A stall spent mostly in one function.
pub(super) fn stall() -> Stall {
    Stall {
        at: "2026-01-02T03:04:05.912345Z".into(),
        start_ns: 7,
        end_ns: 21_400_007,
        stage: Stage::NetRx,
        cpu: 1,
        labels: Labels::default(),
        duration_ns: 21_400_000,
        net_rx: None,
        interference: None,
        unsampled_ns: Some(0),
        sampled_ns: Some(21_000_000),
        steal_ns: Some(0),
        samples: 23,
        culprits: vec![Culprit {
            function: "tcp_collapse".into(),
            samples: 20,
            waiting_for_lock: 0,
            share: 20.0 / 23.0,
        }],
        stacks: Vec::new(),
    }
}

pub(super) fn interval(series: Vec<Series>) -> Interval {
    Interval::new(Duration::ZERO, Duration::from_millis(1500), series)
}

pub(super) fn started_at() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_767_323_045_006)
}

fn probe(stage: Stage, at: &str, note: Option<Note>) -> SelectedProbe {
    let method = Some(Method::Tracepoint);
    SelectedProbe { stage, method, at: at.into(), notes: note.into_iter().collect() }
}

pub(super) fn run() -> Run {
    let absent = SelectedProbe {
        stage: Stage::Softirq,
        method: None,
        at: String::new(),
        notes: vec![Note::NoSuchMethod { method: Some(Method::Kprobe) }],
    };
    Run {
        host: "web-17".into(),
        kernel: "6.12.43+deb12-cloud-amd64".into(),
        started_at: humantime::format_rfc3339_millis(started_at()).to_string(),
        duration_s: 30.004,
        ifaces: vec!["eth0".into()],
        threshold_ns: THRESHOLD_NS,
        transport: Transport::Maps,
        probes: vec![
            probe(Stage::RxWait, "irq:softirq_raise/irq:softirq_entry", None),
            probe(Stage::NetRx, "irq:softirq_entry/irq:softirq_exit", None),
            probe(Stage::NapiPoll, "napi:napi_poll", Some(Note::ApproximatePolls)),
            probe(Stage::Irq, "irq:irq_handler_entry/irq:irq_handler_exit", None),
            probe(Stage::TcpCollapse, "tcp_collapse", None),
            absent,
        ],
        sampling: Sampling { hz: 1999, notes: vec![Note::SamplerBlindSpot], ..Sampling::default() },
        cpus: 4,
        version: "0.1.0".into(),
    }
}

/// The summary of a run whose ledger balances.
pub(super) fn summary(all: &[Series]) -> Summary {
    let series: Vec<SeriesSummary> = all.iter().map(SeriesSummary::new).collect();
    let counts = |stage: Stage| {
        let of_stage = || series.iter().filter(|row| row.stage == stage).map(|row| &row.numbers);
        let recorded = of_stage().map(|numbers| numbers.count).sum();
        let stalls = of_stage().map(|numbers| numbers.over_threshold).sum();
        let counted = UserCounts {
            started: recorded + 1,
            recorded,
            over_threshold: stalls,
            in_progress: 1,
            records: stalls,
            ..UserCounts::default()
        };
        let records = RecordLedger { submitted: stalls, ..RecordLedger::default() };
        StageCounts::new(stage, &StageLedger::default(), &records, counted, true)
    };
    let stages = [Stage::NetRx, Stage::NapiPoll].map(counts).to_vec();
    let ledger = Ledger { stages, ..Ledger::default() }.closed();
    let mut by_stage = BTreeMap::new();
    for row in series.iter().filter(|row| row.numbers.over_threshold > 0) {
        *by_stage.entry(row.stage.clone()).or_default() += row.numbers.over_threshold;
    }
    Summary {
        dropped_output_lines: None,
        run: run(),
        stalls: Stalls { threshold_ns: THRESHOLD_NS, by_stage, ..Stalls::default() },
        series,
        ledger,
        self_cost: SelfCost {
            programs: 8,
            row_bytes: 41 << 20,
            user_cpu_s: 0.0463,
            startup_cpu_s: 0.12,
            resident_bytes: 12_345_678,
            kernel: KernelCost::default(),
        },
    }
}
