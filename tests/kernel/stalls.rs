//! Stall records: injected stalls are described, and the cause is named.

use std::{
    fmt::Write as _,
    fs,
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use latency_common::stage::Stage;
use latency_tests::{load, namespace, release, tool, veth};
use latency_user::{
    collect::{
        clocks::monotonic_ns,
        config::{Config, DEFAULT_SAMPLE_HZ},
        tracer::Tracer,
    },
    model::stall::batch::Stack,
};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    injector::{Injector, MARKED_PORT, is_its_program},
    queues::flow_of_each_queue,
    suite::{Where, in_vm, trial, trial_unless, vm_series},
    tracing::{Tracing, counts, kinds, number},
};

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let veth = ["ip", "ethtool"];
    let raises_during_run = vm_series().is_some_and(|series| series == "6.1");
    [
        trial("stalls::injected_stalls_are_described", Where::Everywhere, &veth, injected),
        trial("stalls::the_case_study_names_tcp_collapse", Where::Host, &["ip"], the_case),
        trial("stalls::a_long_nft_ruleset_is_the_culprit", Where::Host, &["nft"], long_ruleset),
        trial_unless(
            release::has_backlog_threads().then(|| "steered packets wait for a thread".to_owned()),
            "stalls::a_task_that_delays_net_rx_is_named",
            Where::Everywhere,
            &veth,
            busy_task,
        ),
        trial(
            "stalls::records_dropped_by_a_full_ring_are_counted",
            Where::Everywhere,
            &[],
            full_ring,
        ),
        trial("stalls::a_long_interval_loses_no_stalls", Where::Everywhere, &[], long_interval),
        trial("stalls::the_stall_limit_is_kept_and_counted", Where::Everywhere, &[], limit),
        raises_during_run
            .then(|| {
                trial("stalls::a_vector_that_delays_net_rx_is_named", Where::Vm, &veth, busy_vector)
            })
            .flatten(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Period of the sampling clock by default, ns.
const PERIOD_NS: u64 = 1_000_000_000 / DEFAULT_SAMPLE_HZ;

/// `ms`, or five times that in a virtual machine: under emulation everything takes longer.
pub(crate) fn stretched(ms: u64) -> Duration {
    Duration::from_millis(if in_vm() { 5 * ms } else { ms })
}

fn injected() -> Result<()> {
    for (ms, count) in [(3, 31), (7, 17), (19, 11)] {
        inject(stretched(ms), count).with_context(|| format!("{count} of {ms} ms"))?;
    }
    Ok(())
}

fn inject(spin: Duration, count: u64) -> Result<()> {
    namespace::run(|| {
        load::pin_to(0)?;
        veth::make(4)?;
        let mut sender = veth::sender()?;
        let flows = flow_of_each_queue(&mut sender, MARKED_PORT)?;
        let mut injector = Injector::attach(spin)?;
        let threshold = format!("{}us", spin.as_micros());
        let mut tracing = Tracing::start(&[
            "--iface",
            veth::RECEIVER,
            "--threshold",
            &threshold,
            "--sample-when",
            "always",
        ])?;
        // The order of the queues names them: a packet goes through each.
        let others = flow_of_each_queue(&mut sender, MARKED_PORT + 1)?;
        tracing.wait_until_named(veth::RECEIVER, 1, || sender.send(others[1], MARKED_PORT + 1))?;
        let began = monotonic_ns();
        injector.stall(&mut sender, flows[1], count)?;
        let durations = injector.durations()?;
        let objects = tracing.objects()?;

        let is = |stage: &'static str| {
            kinds(&objects, "stall").filter(move |stall| {
                let started = stall["start_ns"].as_u64();
                stall["stage"] == stage && stall["cpu"] == 0 && started > Some(began)
            })
        };
        let polls: Vec<_> = is("napi_poll").filter(|poll| poll["queue"] == 1).collect();
        ensure!(polls.len() as u64 == count, "{} polls: {polls:?}", polls.len());
        let runs: Vec<_> = is("net_rx")
            .filter(|run| run["net_rx"]["polls"][0]["iface"] == veth::RECEIVER)
            .collect();
        ensure!(runs.len() as u64 == count, "{} runs: {runs:?}", runs.len());
        // Stalls come in the order of their ends, which is the order of sending.
        let (mut near, mut sampled, mut blamed) = (0, 0, 0);
        for ((poll, run), injected) in polls.iter().zip(&runs).zip(&durations) {
            for stall in [poll, run] {
                let duration = number(stall, "duration_ns")?;
                ensure!(duration >= *injected, "delayed for {injected}: {stall}");
                near += u64::from(duration < injected + injected / 20);
                // What is more is time in which the CPU did not run, as far as the clock can tell.
                let more = duration.saturating_sub(injected + injected / 20);
                let not_running = number(stall, "unsampled_ns")?;
                ensure!(more <= not_running + 2 * PERIOD_NS, "delayed for {injected}: {stall}");
                let span = number(stall, "end_ns")? - number(stall, "start_ns")?;
                ensure!(span == duration, "{stall}");
            }
            parts_add_up(run)?;
            // A CPU that hardly ran has few samples, by chance none in the injector.
            let told = number(poll, "sampled_ns")? + number(poll, "unsampled_ns")?;
            ensure!(2 * told > *injected, "delayed for {injected}: {poll}");
            let stacks: Vec<Stack> = serde_json::from_value(poll["stacks"].clone())?;
            let is_injector =
                |stack: &Stack| stack.frames.iter().any(|frame| is_its_program(frame));
            sampled += u64::from(stacks.iter().any(is_injector));
            let worst = &poll["culprits"][0];
            blamed += u64::from(
                worst["function"].as_str().is_some_and(is_its_program)
                    && worst["share"].as_f64() > Some(0.9),
            );
        }
        ensure!(2 * sampled > count, "the injector has samples in {sampled} of {count}: {polls:?}");
        // An emulated clock ticks late; in a short stall, the time between two ticks is a large part.
        if !in_vm() && spin.as_millis() > 15 {
            ensure!(2 * blamed > count, "the injector has 90 % in {blamed} of {count}: {polls:?}");
        }
        ensure!(near > count, "{near} of {} within 5 %", 2 * count);
        let summary = objects.last().context("no summary")?;
        ensure!(summary["ledger"]["balanced"] == true, "{}", summary["ledger"]);
        Ok(())
    })
}

/// The polls and the time outside of them add up to the complete run, to the nanosecond.
fn parts_add_up(run: &Value) -> Result<()> {
    let parts = &run["net_rx"];
    let polls = parts["polls"].as_array().context("no polls")?;
    let mut sum = number(parts, "more_polls_ns")? + number(parts, "rest_ns")?;
    for poll in polls {
        sum += number(poll, "ns")?;
    }
    ensure!(sum == number(run, "duration_ns")?, "{sum} in parts: {run}");
    ensure!(polls.iter().any(|poll| poll["queue"] == 1 && poll["work"] == 1), "{run}");
    Ok(())
}

/// The case study on a kernel where `tcp_collapse` cannot be probed: the stacks name it.
fn the_case() -> Result<()> {
    namespace::run(|| {
        let tracing = Tracing::start(&[])?;
        load::tcp_collapse(load::LARGE_RMEM, Duration::from_secs(6), || false)?;
        let summary = tracing.summary()?;
        let stalls = &summary["stalls"];
        ensure!(stalls["culprits"][0]["function"] == "tcp_collapse", "{stalls}");
        ensure!(stalls["culprits"][0]["share"].as_f64() > Some(0.5), "{stalls}");
        let tcp = stalls["tcp"].as_array().context("no counters")?;
        ensure!(tcp.iter().any(|netns| netns["rcv_collapsed"].as_u64() > Some(1000)), "{stalls}");
        Ok(())
    })
}

/// A culprit that the code does not know by name: many packet-filter rules.
fn long_ruleset() -> Result<()> {
    namespace::run(|| {
        let mut rules =
            "table ip t {\n chain input {\n  type filter hook input priority 0;\n".to_owned();
        for port in 0..30_000 {
            writeln!(rules, "  udp dport {} counter", 10_000 + port)?;
        }
        rules.push_str(" }\n}\n");
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("rules.nft");
        fs::write(&path, rules)?;
        tool::run(&format!("nft -f {}", path.display()))?;
        let tracing = Tracing::start(&["--threshold", "200us"])?;
        load::udp(401)?;
        let summary = tracing.summary()?;
        let stalls = &summary["stalls"];
        ensure!(stalls["by_stage"]["net_rx"].as_u64() > Some(100), "{stalls}");
        ensure!(stalls["culprits"][0]["function"] == "nft_do_chain", "{}", stalls["culprits"]);
        Ok(())
    })
}

/// A task sends with softirqs disabled for a long time while another CPU raises NET_RX there.
fn busy_task() -> Result<()> {
    namespace::run(|| {
        veth::make(4)?;
        let mut sender = veth::sender()?;
        let flow = flow_of_each_queue(&mut sender, MARKED_PORT)?[0];
        let mut injector = Injector::attach_to_sender(stretched(7))?;
        let waits = waits_on_first_cpu(&mut || injector.stall(&mut sender, flow, 17))?;
        let named = |wait: &&Value| {
            let tasks = wait["interference"]["tasks"].as_array();
            tasks.is_some_and(|tasks| tasks.iter().any(|task| task["comm"] == "holder"))
        };
        ensure!(waits.iter().any(|wait| named(&wait)), "{waits:?}");
        Ok(())
    })
}

/// NET_RX itself runs for a long time and is raised again meanwhile. Only kernels before 6.4 do
/// that; later kernels continue the run instead
/// (<https://elixir.bootlin.com/linux/v6.4/source/net/core/dev.c#L4466>).
fn busy_vector() -> Result<()> {
    namespace::run(|| {
        veth::make(4)?;
        let mut sender = veth::sender()?;
        let flow = flow_of_each_queue(&mut sender, MARKED_PORT)?[0];
        let mut injector = Injector::attach(stretched(7))?;
        let named = |wait: &&Value| {
            let first = &wait["interference"]["vectors"][0];
            let most = number(wait, "duration_ns").unwrap_or(u64::MAX) / 2;
            first["vector"] == "NET_RX" && first["ns"].as_u64() > Some(most)
        };
        // NET_RX ran in the context of the sender, which must not be blamed for it: the sender has
        // no more samples than the rest of the waits explains.
        let (mut in_softirq, mut of_sender, mut rest_ns) = (0, 0, 0);
        let waits = waits_on_first_cpu(&mut || injector.stall(&mut sender, flow, 17))?;
        for wait in waits.iter().filter(named) {
            in_softirq += number(&wait["interference"], "in_softirq")?;
            rest_ns += number(wait, "duration_ns")?
                .saturating_sub(number(&wait["interference"]["vectors"][0], "ns")?);
            let tasks = wait["interference"]["tasks"].as_array().into_iter().flatten();
            for task in tasks.filter(|task| task["comm"] == "holder") {
                of_sender += number(task, "samples")?;
            }
        }
        ensure!(
            in_softirq > 5 * of_sender.saturating_sub(rest_ns / 1_000_000),
            "NET_RX waits: {in_softirq} samples in softirqs, {of_sender} of its sender, which had \
             {rest_ns} ns beside NET_RX"
        );
        Ok(())
    })
}

/// The stalls of `rx_wait` on the first CPU while `occupy` runs there in a task called `holder` and
/// the second CPU steers its packets to the first (RPS).
fn waits_on_first_cpu(occupy: &mut (dyn FnMut() -> Result<()> + Send)) -> Result<Vec<Value>> {
    fs::write("/sys/class/net/lo/queues/rx-0/rps_cpus", "1").context("steer loopback to CPU 0")?;
    let tracing = Tracing::start(&["--sample-when", "always"])?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let packets = scope.spawn(|| {
            load::pin_to(1)?;
            let receiver = UdpSocket::bind("127.0.0.1:0")?;
            let sender = UdpSocket::bind("127.0.0.1:0")?;
            sender.connect(receiver.local_addr()?)?;
            while !done.load(Ordering::Relaxed) {
                sender.send(&[0; 64])?;
                thread::sleep(Duration::from_micros(300));
            }
            anyhow::Ok(())
        });
        let holder = thread::Builder::new().name("holder".into()).spawn_scoped(scope, || {
            load::pin_to(0)?;
            occupy()
        })?;
        let occupied = holder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        done.store(true, Ordering::Relaxed);
        packets.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(occupied)
    })?;
    let objects = tracing.objects()?;
    let waits =
        kinds(&objects, "stall").filter(|stall| stall["stage"] == "rx_wait" && stall["cpu"] == 0);
    let waits: Vec<Value> = waits.cloned().collect();
    ensure!(!waits.is_empty(), "no wait on CPU 0");
    Ok(waits)
}

/// Every event is a stall, the ring holds a few records, and nobody reads it: histograms stay
/// exact.
fn full_ring() -> Result<()> {
    namespace::run(|| {
        let mut tracer = Tracer::start(&Config {
            stages: vec![Stage::RxWait, Stage::NetRx],
            threshold_ns: 1,
            records_per_second: u64::MAX,
            record_bytes: Some(4096),
            ..Config::new()
        })?;
        let packets = 20_011;
        load::udp(packets)?;
        let ledger = tracer.finish();
        ensure!(ledger.balanced, "{ledger:?}");
        for counts in &ledger.stages {
            let records = &counts.records;
            ensure!(counts.recorded >= packets, "{counts:?}");
            ensure!(records.dropped > packets / 2, "{counts:?}");
            ensure!(records.submitted + records.dropped == counts.recorded, "{counts:?}");
            ensure!(records.submitted == records.received && records.limited == 0, "{counts:?}");
        }
        Ok(())
    })
}

/// A snapshot every 10 s, with more records in between than the ring can hold: 1000 per second and
/// CPU are 5 MB.
fn long_interval() -> Result<()> {
    namespace::run(|| {
        // Without IRQs, which take most of the records on Arm, and without symbols to read.
        let stages = ["--stages", "rx_wait,net_rx,napi_poll", "--sample-hz", "0"];
        let intervals = ["--threshold", "1ns", "--interval", "10s"];
        let tracing = Tracing::start(&[stages, intervals].concat())?;
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(6) {
            load::udp(101)?;
            // The reader may have to wait for a CPU; a burst of a whole second would fill the ring.
            thread::sleep(Duration::from_millis(10));
        }
        let summary = tracing.summary()?;
        for stage in ["rx_wait", "net_rx", "napi_poll"] {
            let records = &counts(&summary, stage)?["records"];
            ensure!(number(records, "submitted")? > 1000, "{stage}: {records}");
            ensure!(number(records, "dropped")? == 0, "{stage}: {records}");
        }
        Ok(())
    })
}

fn limit() -> Result<()> {
    namespace::run(|| {
        let tracing = Tracing::start(&["--threshold", "1ns", "--max-stalls", "101"])?;
        load::udp(20_011)?;
        let summary = tracing.summary()?;
        let seconds = summary["run"]["duration_s"].as_f64().context("no duration")?;
        let cpus = number(&summary["run"], "cpus")?;
        let mut submitted = 0;
        for stage in ["rx_wait", "net_rx", "napi_poll"] {
            let stage_counts = counts(&summary, stage)?;
            let records = &stage_counts["records"];
            let sum = ["submitted", "dropped", "limited"]
                .into_iter()
                .map(|name| number(records, name))
                .sum::<Result<u64>>()?;
            ensure!(sum == number(stage_counts, "recorded")?, "{stage_counts}");
            ensure!(number(records, "limited")? > 10_000, "{stage_counts}");
            submitted += number(records, "submitted")?;
        }
        // A run overlaps one calendar second more than it lasts.
        let most = 101 * cpus * (seconds.ceil() as u64 + 1);
        ensure!(submitted <= most, "{submitted} of at most {most}");
        Ok(())
    })
}
