//! Differences between kernels: every method of every stage, and offsets of struct fields.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use latency_common::stage::Stage;
use latency_tests::{counters, load, namespace, release, tool, veth};
use latency_user::{
    collect::{config::Config, tracer::Tracer},
    host::cpu::softirqs::Softirqs,
    kernel::{
        probes::{hooks, selection::ProbeChoice},
        types::{
            btf::{self, Btf},
            offsets,
        },
    },
    model::{
        distribution::Distribution,
        method::Method,
        series::{Location, Queue, QueueId, Series},
    },
};
use libtest_mimic::Trial;

use crate::{
    injector::{Injector, MARKED_PORT},
    queues::flow_of_each_queue,
    suite::{Where, trial},
    types::Types,
};

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let tools = ["ip", "ethtool"];
    [
        trial("kernels::every_method_attaches", Where::Vm, &[], every_method),
        trial("kernels::methods_agree_on_polls_and_net_rx_runs", Where::Vm, &tools, polls_and_runs),
        trial("kernels::methods_agree_on_irqs", Where::Vm, &[], irqs),
        trial("kernels::methods_agree_on_tcp_collapse", Where::Vm, &["ip"], collapses),
        trial("kernels::offsets_match_bpftool", Where::Everywhere, &["bpftool"], offsets),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A tracer of `stages` by one method.
fn tracer(stages: &[Stage], method: Method) -> Result<Tracer> {
    let tracer = Tracer::start(&Config {
        stages: stages.to_vec(),
        by_name: true,
        choice: ProbeChoice::Forced(method),
        threshold_ns: STALL.as_nanos() as u64,
        ..Config::new()
    })?;
    for probe in tracer.probes() {
        ensure!(probe.method == Some(method), "{probe:?}, expected {method}");
    }
    Ok(tracer)
}

const STALL: Duration = Duration::from_millis(20);

/// The programs of each method of each stage load, attach and account for every event, with the
/// sampler and the packet probe attached too.
fn every_method() -> Result<()> {
    namespace::run(|| {
        for stage in Stage::ALL {
            for &method in hooks::methods(stage) {
                let what = || format!("{} by {method}", stage.name());
                if let Some(reason) = known_gap(stage, method) {
                    let error = tracer(&[stage], method).map(drop).expect_err("a known gap");
                    ensure!(error.to_string().contains(reason), "{}: {error:#}", what());
                    continue;
                }
                let mut tracer = tracer(&[stage], method).with_context(what)?;
                let sampling = tracer.sampling();
                ensure!(sampling.hz > 0, "{sampling:?}");
                if stage == Stage::NapiPoll {
                    tracer.attached().watch_rx_queues().context("the packet probe")?;
                    ensure!(tracer.attached().watches_rx_queues(), "no packet probe");
                }
                load::udp(101)?;
                let ledger = tracer.finish();
                ensure!(ledger.balanced, "{}: {ledger:?}", what());
                let expected = matches!(stage, Stage::RxWait | Stage::NetRx | Stage::NapiPoll);
                let recorded = ledger.stages[0].recorded;
                ensure!(!expected || recorded >= 101, "{}: {ledger:?}", what());
            }
        }
        Ok(())
    })
}

/// The reason reported for a method that this kernel does not support.
///
/// `tcp_collapse` has seven arguments; before 6.6, trampolines on x86 pass at most six.
fn known_gap(stage: Stage, method: Method) -> Option<&'static str> {
    match (stage, method) {
        (_, Method::Fentry) if !release::has_trampolines() => Some("none before 6.4"),
        (Stage::TcpCollapse, Method::Fentry) => release::is_before(6, 6).then_some("six arguments"),
        (Stage::NapiPoll, Method::Fentry | Method::Kprobe) => {
            (!release::has_poll_function()).then_some("no function __napi_poll")
        }
        _ => None,
    }
}

/// One of the tracers that run on the same load.
struct Side {
    method: Method,
    tracer: Tracer,
    counted: Vec<Series>,
}

/// Starts a tracer for each method, runs `load`, and returns the series of each tracer.
fn side_by_side(
    stages: &[Stage],
    methods: &[Method],
    load: impl FnOnce() -> Result<()>,
) -> Result<Vec<Side>> {
    let mut sides = methods
        .iter()
        .map(|&method| Ok(Side { method, tracer: tracer(stages, method)?, counted: Vec::new() }))
        .collect::<Result<Vec<_>>>()?;
    for side in &mut sides {
        side.tracer.take_series()?;
    }
    load()?;
    for side in &mut sides {
        side.counted = side.tracer.take_series()?;
    }
    for side in &mut sides {
        let ledger = side.tracer.finish();
        ensure!(ledger.balanced, "{}: {ledger:?}", side.method);
    }
    Ok(sides)
}

impl Side {
    /// The sum of the series that `is_it` picks.
    fn sum(&self, is_it: impl Fn(&Series) -> bool) -> Distribution {
        let mut sum = Distribution::default();
        for series in self.counted.iter().filter(|series| is_it(series)) {
            sum.add(&series.distribution);
        }
        sum
    }

    /// The median of the durations at or above the threshold, ns.
    fn median_stall(&self, is_it: impl Fn(&Series) -> bool) -> f64 {
        let sum = self.sum(is_it);
        let longer = sum.over_threshold as f64 / 2.0 / sum.count() as f64;
        sum.histogram().value_at_quantile(1.0 - longer) as f64
    }
}

fn net_rx_softirqs() -> Result<u64> {
    let softirqs = Softirqs::read(Path::new("/"))?;
    let counts = softirqs.counts("NET_RX").context("no NET_RX")?;
    Ok(counts.iter().map(|count| u64::from(*count)).sum())
}

fn polls_and_runs() -> Result<()> {
    namespace::run(|| {
        load::pin_to(0)?;
        veth::make(4)?;
        let mut sender = veth::sender()?;
        let flows = flow_of_each_queue(&mut sender, MARKED_PORT)?;
        let quick = flow_of_each_queue(&mut sender, MARKED_PORT + 1)?;
        let mut injector = Injector::attach(STALL)?;
        let stalls = 23;
        let packets = 401;
        let before = net_rx_softirqs()?;
        let mut inside = [0; 2];
        let mut methods = vec![Method::Tracepoint, Method::Fentry, Method::Kprobe];
        methods.retain(|method| known_gap(Stage::NapiPoll, *method).is_none());
        let sides = side_by_side(&[Stage::NetRx, Stage::NapiPoll], &methods, || {
            inside[0] = net_rx_softirqs()?;
            // Send to every queue, so that each NAPI instance is resolved to its RX queue.
            for round in 0..packets {
                sender.send(quick[round % quick.len()], MARKED_PORT + 1)?;
            }
            injector.stall(&mut sender, flows[3], stalls)?;
            inside[1] = net_rx_softirqs()?;
            Ok(())
        })?;
        let (least, most) = (inside[1] - inside[0], net_rx_softirqs()? - before);

        let queue = |wanted: u32| {
            move |series: &Series| {
                matches!(&series.id.at, Location::Queue(Queue::Device { iface, id, .. })
                    if iface == veth::RECEIVER && *id == QueueId::Rx(wanted))
            }
        };
        let first = &sides[0];
        for side in &sides {
            let method = side.method;
            let runs = side.sum(|series| series.id.stage == Stage::NetRx);
            let count = runs.count();
            ensure!((least..=most).contains(&count), "{method}: {count} of {least} to {most}");
            for number in 0..4 {
                let (polls, theirs) = (side.sum(queue(number)), first.sum(queue(number)));
                ensure!(
                    polls.count() == theirs.count(),
                    "{method}, q{number}: {polls:?} {theirs:?}"
                );
                ensure!(polls.work == theirs.work, "{method}, q{number}: {polls:?} {theirs:?}");
                ensure!(number != 3 || polls.over_threshold >= stalls, "{polls:?}");
            }
            // The spin is most of a stall, so the cost of the probes hardly matters.
            let (ours, theirs) = (side.median_stall(queue(3)), first.median_stall(queue(3)));
            ensure!((ours / theirs - 1.0).abs() < 0.05, "{method}: {ours} ns, {theirs} ns");
        }
        Ok(())
    })
}

/// Counts hard IRQs of the machine's own NIC while it sends and receives.
fn irqs() -> Result<()> {
    let count = |side: &Side| -> BTreeMap<u32, u64> {
        let mut counts = BTreeMap::new();
        for series in &side.counted {
            if let Location::Irq { number: Some(number), name: Some(name), .. } = &series.id.at
                && name.contains("virtio")
            {
                *counts.entry(*number).or_default() += series.distribution.count();
            }
        }
        counts
    };
    let sides = side_by_side(&[Stage::Irq], &[Method::Tracepoint, Method::Kprobe], || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        for _ in 0..53 {
            // The gateway of QEMU's user-mode network.
            socket.send_to(&[0; 64], "10.0.2.2:9")?;
            std::thread::sleep(Duration::from_millis(5));
        }
        // Let pending IRQs finish.
        std::thread::sleep(Duration::from_millis(200));
        Ok(())
    })?;
    let (tracepoint, kprobe) = (count(&sides[0]), count(&sides[1]));
    ensure!(tracepoint == kprobe, "{tracepoint:?}, by kprobe {kprobe:?}");
    ensure!(tracepoint.values().sum::<u64>() > 10, "too little load: {tracepoint:?}");
    Ok(())
}

/// Calls of a function as the kernel's own kprobe events count them.
struct KernelCounter(&'static str);

impl KernelCounter {
    fn start(function: &'static str) -> Result<Self> {
        let events = "/sys/kernel/tracing/kprobe_events";
        fs::write(events, format!("p:counted/{function} {function}\n"))
            .with_context(|| format!("write {events}"))?;
        let counter = Self(function);
        counter.enable("1")?;
        Ok(counter)
    }

    fn enable(&self, value: &str) -> Result<()> {
        let path = format!("/sys/kernel/tracing/events/counted/{}/enable", self.0);
        fs::write(&path, value).with_context(|| format!("write {path}"))
    }

    fn count(&self) -> Result<u64> {
        let profile = fs::read_to_string("/sys/kernel/tracing/kprobe_profile")?;
        let line = profile.lines().find(|line| line.split_whitespace().next() == Some(self.0));
        let hits = line.and_then(|line| line.split_whitespace().nth(1));
        hits.and_then(|hits| hits.parse().ok()).with_context(|| format!("{}: {profile}", self.0))
    }
}

impl Drop for KernelCounter {
    fn drop(&mut self) {
        // Errors are ignored: the virtual machine ends with its tests.
        let _ = self.enable("0");
        let _ = fs::write("/sys/kernel/tracing/kprobe_events", "");
    }
}

fn collapses() -> Result<()> {
    namespace::run(|| {
        let counter = KernelCounter::start("tcp_collapse")?;
        let mut calls = 0;
        let mut collapsed = 0;
        let methods: Vec<Method> = hooks::methods(Stage::TcpCollapse)
            .iter()
            .copied()
            .filter(|method| known_gap(Stage::TcpCollapse, *method).is_none())
            .collect();
        let sides = side_by_side(&[Stage::TcpCollapse], &methods, || {
            let enough = || counter.count().is_ok_and(|count| count >= 53);
            load::tcp_collapse(load::LARGE_RMEM, Duration::from_secs(120), enough)?;
            calls = counter.count()?;
            collapsed = counters::netstat("TcpExt", "TCPRcvCollapsed")?;
            Ok(())
        })?;
        ensure!(collapsed > 0, "nothing was collapsed in {calls} calls");
        let first = sides[0].sum(|_| true);
        for side in &sides {
            let row = side.sum(|_| true);
            ensure!(row.count() == calls, "{}: {row:?}, the kernel: {calls}", side.method);
            ensure!(row.sum_ns > 0 && row.max_ns <= row.sum_ns, "{}: {row:?}", side.method);
            // One method's span encloses the other's, around the same calls.
            let ratio = row.sum_ns as f64 / first.sum_ns as f64;
            ensure!((0.5..2.0).contains(&ratio), "{}: {row:?}, {first:?}", side.method);
        }
        Ok(())
    })
}

fn offsets() -> Result<()> {
    let ours = Btf::read(Path::new(btf::VMLINUX))?;
    let dump = tool::run("bpftool btf dump file /sys/kernel/btf/vmlinux")?;
    let theirs = Types::parse(&dump);
    for field in &offsets::FIELDS {
        let found = ours.offset(field.structure, field.path);
        let expected = theirs.offset(field.structure, field.path);
        let name = format!("{}.{}", field.structure, field.path);
        ensure!(found == expected && found.is_some(), "{name}: {found:?}, bpftool {expected:?}");
    }
    ensure!(theirs.offset("napi_struct", "no_such_field").is_none());
    Ok(())
}
