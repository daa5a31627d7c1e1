//! Runs made up for the tests of views.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use latency_common::{
    stage::Stage,
    state::{RecordLedger, StageLedger},
};

use crate::{
    analysis::{culprits::Culprit, stall_totals::StallTotals},
    model::{
        cost::{KernelCost, SelfCost},
        distribution::Distribution,
        interval::Interval,
        ledger::{Counted, Ledger, StageBooks},
        place::Place,
        run::{Method, ProbeUse, Run, Sampling, Transport},
        series::{Owner, Queue, Series},
        stall::Stall,
        summary::{SeriesSummary, Stalls, Summary},
    },
};

/// The threshold of all samples, ns.
pub(super) const THRESHOLD_NS: u64 = 1_000_000;

/// Series with their distributions.
pub(super) type Recorded = Vec<(Series, Distribution)>;

/// `count` durations around `ns`, followed by those in `tail`.
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

pub(super) fn cpu(stage: Stage, cpu: u32) -> Series {
    Series { stage, owner: Owner::Cpu(cpu) }
}

pub(super) fn queue(iface: &str, queue: Option<u32>, netns: Option<u32>) -> Series {
    let irq = queue.map(|queue| 29 + queue);
    let napi_id = 513 + queue.unwrap_or_default();
    let queue = Queue::Device { iface: iface.into(), netns, queue, napi_id, irq };
    Series { stage: Stage::NapiPoll, owner: Owner::Queue(queue) }
}

pub(super) fn irq(number: u32, name: &str, cpu: u32) -> Series {
    let owner = Owner::Irq { number: Some(number), name: Some(name.into()), cpu };
    Series { stage: Stage::Irq, owner }
}

/// Four CPUs and four queues, of which CPU 1 and queue 2 stalled.
pub(super) fn stalled() -> Recorded {
    let long: Vec<u64> = (0..37).map(|n| 1_400_000 + n * 555_555).collect();
    let mut recorded = Vec::new();
    for n in 0..4 {
        let tail: &[u64] = if n == 1 { &long } else { &[] };
        recorded.push((cpu(Stage::RxWait, n), durations(9000, 2100, &tail[..tail.len() / 3])));
        recorded.push((cpu(Stage::NetRx, n), durations(9000, 8100, tail)));
    }
    for n in 0..4 {
        let tail: &[u64] = if n == 2 { &long } else { &[] };
        recorded.push((queue("eth0", Some(n), None), durations(7000, 7100, tail)));
        recorded.push((irq(29 + n, &format!("eth0-TxRx-{n}"), n), durations(6000, 900, &[])));
    }
    let backlog = Owner::Queue(Queue::Backlog { cpu: 0 });
    let backlog = Series { stage: Stage::NapiPoll, owner: backlog };
    recorded.push((backlog, durations(300, 4000, &[])));
    recorded.push((cpu(Stage::TcpCollapse, 1), durations(50, 90_000, &long[25..])));
    recorded
}

/// Everything at its longest: 256 CPUs, queues with 15-character names in other namespaces.
pub(super) fn awkward() -> Recorded {
    let mut recorded = Vec::new();
    for n in 0..256 {
        let long = [u64::from(n) << 29, 68_000_000_000];
        let tail = if n % 9 == 0 { &long[..] } else { &[] };
        recorded.push((cpu(Stage::NetRx, n), durations(5, 12_345 + u64::from(n), tail)));
        let name = format!("enp129s0f1np{n:03}");
        let netns = Some(4_026_532_211 + n);
        let queue = self::queue(&name, (n % 2 == 0).then_some(n), netns);
        recorded.push((queue, durations(2, 33_333, tail)));
        let irq = irq(1000 + n, &format!("mlx5_comp{n}@pci:0000:c1:00.1 \x1b[31mé"), n);
        recorded.push((irq, durations(2, 33_333, tail)));
    }
    for (_, distribution) in &mut recorded {
        if let Some(first) = distribution.buckets.first_mut() {
            first.1 += 987_654_321;
        }
    }
    recorded
}

/// A stall of which most was spent in one function.
pub(super) fn stall() -> Stall {
    Stall {
        at: "2026-01-02T03:04:05.912345Z".into(),
        begin_ns: 7,
        end_ns: 21_400_007,
        stage: Stage::NetRx,
        cpu: 1,
        place: Place::default(),
        duration_ns: 21_400_000,
        net_rx: None,
        rx_wait: None,
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

pub(super) fn interval(series: Recorded) -> Interval {
    Interval {
        began_at: start(),
        duration: Duration::from_millis(1500),
        series,
        stalls: Vec::new(),
        collapses: Vec::new(),
        stacks: Vec::new(),
    }
}

fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_767_323_045_006)
}

fn probe(stage: Stage, at: &str, note: Option<&str>) -> ProbeUse {
    let method = Some(Method::Tracepoint);
    ProbeUse { stage, method, at: at.into(), note: note.map(str::to_owned) }
}

pub(super) fn run() -> Run {
    let absent = ProbeUse {
        stage: Stage::Softirq,
        method: None,
        at: String::new(),
        note: Some("not asked for: name it in --stages".into()),
    };
    Run {
        host: "web-17".into(),
        kernel: "6.12.43+deb12-cloud-amd64".into(),
        started_at: humantime::format_rfc3339_millis(start()).to_string(),
        duration_s: 30.004,
        ifaces: vec!["eth0".into()],
        threshold_ns: THRESHOLD_NS,
        transport: Transport::Maps,
        probes: vec![
            probe(Stage::RxWait, "irq:softirq_raise/irq:softirq_entry", None),
            probe(Stage::NetRx, "irq:softirq_entry/irq:softirq_exit", None),
            probe(
                Stage::NapiPoll,
                "napi:napi_poll",
                Some(
                    "approximate: the tracepoint fires after each poll, so the first poll of a \
                     run begins where the softirq does",
                ),
            ),
            probe(Stage::Irq, "irq:irq_handler_entry/irq:irq_handler_exit", None),
            probe(Stage::TcpCollapse, "tcp_collapse", None),
            absent,
        ],
        sampling: Sampling { hz: 1999, note: "blind while interrupts are off".into() },
        cpus: 4,
        version: "0.1.0".into(),
    }
}

/// The summary of a run whose books balance.
pub(super) fn summary(recorded: &Recorded) -> Summary {
    let series: Vec<_> = recorded.iter().map(|(s, d)| SeriesSummary::new(s, d)).collect();
    let books = |stage: Stage| {
        let count = series.iter().filter(|s| s.stage == stage.name()).map(|s| s.count).sum();
        let of_stage = series.iter().filter(|s| s.stage == stage.name());
        let stalls = of_stage.map(|s| s.over_threshold).sum();
        let counted = Counted {
            begins: count + 1,
            recorded: count,
            over_threshold: stalls,
            open: 1,
            records: stalls,
            ..Counted::default()
        };
        let records = RecordLedger { submitted: stalls, ..RecordLedger::default() };
        StageBooks::new(stage, &StageLedger::default(), &records, counted, true)
    };
    let stages = [Stage::NetRx, Stage::NapiPoll].map(books).to_vec();
    let ledger = Ledger { stages, ..Ledger::default() }.closed();
    Summary {
        run: run(),
        stalls: Stalls::new(THRESHOLD_NS, &series, &StallTotals::default(), Vec::new()),
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
