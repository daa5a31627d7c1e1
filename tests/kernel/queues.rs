//! Stalls of known duration in one queue of a device with four queues.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use latency_tests::{frames::Sender, load, namespace, release, tool, veth};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    bpftrace::PollCounter,
    counts::softirqs,
    injector::{Injector, MARKED_PORT},
    suite::{Where, in_vm, trial, trial_since},
    tracing::{Tracing, counts, number, series},
};

const QUEUES: u32 = 4;
/// Marked packets: a prime number, which is unlikely to come up by chance.
const STALLS: u64 = 97;
/// How long a marked packet is delayed. An emulated CPU can itself be delayed for some ms.
fn spin() -> Duration {
    Duration::from_millis(if in_vm() { 20 } else { 3 })
}

/// Packets to each queue that are not delayed.
const QUICK: u64 = 5;
/// A port that the injector does not mark.
const QUICK_PORT: u16 = 9798;
/// The CPU that sends; the receiving end is then polled there too.
const CPU: usize = 0;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let tools = ["ip", "ethtool"];
    let with_bpftrace = ["ip", "ethtool", "bpftrace"];
    [
        trial("queues::stalls_are_counted_in_their_queue_only", Where::Everywhere, &tools, stalls),
        trial("queues::polls_match_bpftrace", Where::Host, &with_bpftrace, polls),
        trial("queues::a_new_device_is_picked_up", Where::Everywhere, &tools, appearing),
        trial_since(
            (5, 15),
            "queues::a_removed_queue_keeps_its_name",
            Where::Everywhere,
            &tools,
            vanishing,
        ),
        trial("queues::other_interfaces_are_left_out", Where::Everywhere, &tools, left_out),
        trial_since(
            (5, 12),
            "queues::polls_of_threaded_napi_are_timed",
            Where::Everywhere,
            &tools,
            threaded,
        ),
        trial("queues::two_cpus_on_one_queue_lose_no_count", Where::Everywhere, &tools, contended),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn stalls() -> Result<()> {
    namespace::run(|| {
        load::pin_to(CPU)?;
        veth::make(QUEUES)?;
        let mut sender = veth::sender()?;
        let flows = flow_of_each_queue(&mut sender, QUICK_PORT)?;
        let marked = flow_of_each_queue(&mut sender, MARKED_PORT)?;
        let mut injector = Injector::attach(spin())?;
        let before = veth::packets_by_queue()?;
        let threshold = format!("{}ms", spin().as_millis());
        let tracing = Tracing::start(&["--iface", veth::RECEIVER, "--threshold", &threshold])?;
        for flow in &flows {
            for _ in 0..QUICK {
                sender.send(*flow, QUICK_PORT)?;
            }
        }
        let stalled = 2;
        injector.stall(&mut sender, marked[stalled as usize], STALLS)?;
        let summary = tracing.summary()?;

        let after = veth::packets_by_queue()?;
        for queue in 0..QUEUES {
            let row = queue_row(&summary, queue)?;
            let expected = if queue == stalled { STALLS } else { 0 };
            ensure!(number(row, "over_threshold")? == expected, "queue {queue}: {row}");
            let packets = after[queue as usize] - before[queue as usize];
            ensure!(number(row, "packets")? == packets, "queue {queue}, {packets}: {row}");
        }
        let row = queue_row(&summary, stalled)?;
        ensure!(number(row, "sum_ns")? >= STALLS * spin().as_nanos() as u64, "{row}");
        let cpu = series(&summary, |row| row["stage"] == "net_rx" && row["cpu"] == CPU as u64);
        ensure!(cpu.len() == 1 && number(cpu[0], "over_threshold")? >= STALLS, "{cpu:?}");
        Ok(())
    })
}

fn polls() -> Result<()> {
    namespace::run(|| {
        load::pin_to(CPU)?;
        veth::make(QUEUES)?;
        let mut sender = veth::sender()?;
        let flows = flow_of_each_queue(&mut sender, QUICK_PORT)?;
        let mut counter = PollCounter::start(veth::RECEIVER)?;
        let end = Instant::now() + Duration::from_secs(60);
        while counter.count()? == 0 {
            ensure!(Instant::now() < end, "bpftrace saw no poll of {}", veth::RECEIVER);
            sender.send(flows[0], QUICK_PORT)?;
        }
        let before = counter.count()?;
        let tracing = Tracing::start(&["--iface", veth::RECEIVER])?;
        for round in 0..2003 {
            sender.send(flows[round % flows.len()], QUICK_PORT)?;
        }
        let summary = tracing.summary()?;
        let theirs = counter.count()? - before;
        let of_device = |row: &Value| row["stage"] == "napi_poll" && row["iface"] == veth::RECEIVER;
        let ours: u64 = series(&summary, of_device)
            .into_iter()
            .map(|row| number(row, "count"))
            .sum::<Result<u64>>()?;
        ensure!(ours == theirs && ours > 0, "{ours} polls, {theirs} by bpftrace");
        Ok(())
    })
}

/// A device created while tracing gets rows under its name.
fn appearing() -> Result<()> {
    namespace::run(|| {
        load::pin_to(CPU)?;
        let tracing = Tracing::start(&[])?;
        veth::make(QUEUES)?;
        let mut sender = veth::sender()?;
        flow_of_each_queue(&mut sender, QUICK_PORT)?;
        let summary = tracing.summary()?;
        for queue in 0..QUEUES {
            ensure!(number(queue_row(&summary, queue)?, "count")? > 0, "queue {queue}");
        }
        Ok(())
    })
}

/// Channels are removed while tracing: the removed queues keep their counts.
fn vanishing() -> Result<()> {
    namespace::run(|| {
        load::pin_to(CPU)?;
        veth::make(QUEUES)?;
        let mut sender = veth::sender()?;
        let flows = flow_of_each_queue(&mut sender, QUICK_PORT)?;
        let mut tracing = Tracing::start(&["--iface", veth::RECEIVER])?;
        for queue in 0..QUEUES {
            tracing.wait_until_named(veth::RECEIVER, queue, || {
                flows.iter().try_for_each(|flow| sender.send(*flow, QUICK_PORT))
            })?;
        }
        tool::run(&format!("ethtool -L {} rx 1", veth::RECEIVER))?;
        tool::run(&format!("ip link set {} down", veth::RECEIVER))?;
        tool::run(&format!("ip link set {} up", veth::RECEIVER))?;
        sender.send(20_000, QUICK_PORT)?;
        let summary = tracing.summary()?;
        for queue in 1..QUEUES {
            ensure!(number(queue_row(&summary, queue)?, "count")? > 0, "queue {queue}");
        }
        Ok(())
    })
}

/// With `--iface`, queues and IRQs of other interfaces are not shown; CPUs and backlogs are.
fn left_out() -> Result<()> {
    namespace::run(|| {
        load::pin_to(CPU)?;
        veth::make(QUEUES)?;
        tool::run("ip link add other0 type veth peer name other1")?;
        let mut sender = veth::sender()?;
        let flows = flow_of_each_queue(&mut sender, QUICK_PORT)?;
        let tracing = Tracing::start(&["--iface", "other0"])?;
        for flow in flows {
            sender.send(flow, QUICK_PORT)?;
        }
        load::udp(101)?;
        let summary = tracing.summary()?;
        let of_device = |row: &Value| row["iface"] == veth::RECEIVER;
        ensure!(series(&summary, of_device).is_empty(), "{summary}");
        ensure!(series(&summary, |row| row["stage"] == "irq").is_empty(), "{summary}");
        let backlog = series(&summary, |row| row["queue_kind"] == "backlog");
        let polls: u64 = backlog.iter().map(|row| number(row, "packets")).sum::<Result<u64>>()?;
        ensure!(polls >= 101, "{backlog:?}");
        Ok(())
    })
}

/// For each queue a source port whose flow to `port` goes there, by the driver's counters.
pub(crate) fn flow_of_each_queue(sender: &mut Sender, port: u16) -> Result<Vec<u16>> {
    let mut flows = vec![None; QUEUES as usize];
    for source in 20_000..20_400 {
        let before = veth::packets_by_queue()?;
        sender.send(source, port)?;
        let end = Instant::now() + Duration::from_secs(20);
        let queue = loop {
            let after = veth::packets_by_queue()?;
            if let Some(queue) = after.iter().zip(&before).position(|(a, b)| a > b) {
                break queue;
            }
            ensure!(Instant::now() < end, "a packet did not arrive: {after:?}");
        };
        flows[queue].get_or_insert(source);
        if let Some(flows) = flows.iter().copied().collect() {
            return Ok(flows);
        }
    }
    anyhow::bail!("no flow goes to some queue: {flows:?}")
}

/// A kernel thread polls instead of NET_RX. Its polls are timed by fentry or kprobe; by tracepoint,
/// those that directly follow one that used up its budget, and the others are counted.
fn threaded() -> Result<()> {
    let of_function = if release::has_trampolines() { "fentry" } else { "kprobe" };
    let of_function = (in_vm() && release::has_poll_function()).then_some(of_function);
    for method in of_function.into_iter().chain(["tracepoint"]) {
        namespace::run(|| thread_polls(method)).with_context(|| method.to_owned())?;
    }
    Ok(())
}

fn thread_polls(method: &str) -> Result<()> {
    const PACKETS: u32 = 20_011;
    load::pin_to(CPU)?;
    veth::make(1)?;
    fs::write(format!("/sys/class/net/{}/threaded", veth::RECEIVER), "1")?;
    // On the sender's CPU, so that it finds more packets than its budget.
    pin_polling_threads()?;
    let mut sender = veth::sender()?;
    let before = veth::packets_by_queue()?[0];
    let started = Instant::now();
    let stages = ["--stages", "rx_wait,net_rx,napi_poll", "--probes", method];
    let tracing = Tracing::start(&[&stages[..], &["--iface", veth::RECEIVER]].concat())?;
    for _ in 0..PACKETS {
        match sender.send(20_000, QUICK_PORT) {
            Err(error) if is_full(&error) => {}
            sent => sent?,
        }
    }
    thread::sleep(Duration::from_millis(500));
    let received = veth::packets_by_queue()?[0] - before;
    let summary = tracing.summary()?;
    let lasted = started.elapsed().as_nanos() as u64;
    let row = queue_row(&summary, 0)?;
    let packets = number(row, "packets")?;
    let untimed = number(counts(&summary, "napi_poll")?, "unmatched_end")?;
    match method {
        "tracepoint" => {
            ensure!(0 < packets && packets <= received && untimed > 0, "{received}: {row}");
        }
        _ => ensure!(packets == received, "{received} packets: {row}"),
    }
    // No poll starts before the previous one of its thread ended.
    ensure!(number(row, "sum_ns")? < lasted, "in {lasted} ns: {row}");
    ensure!(summary["ledger"]["balanced"] == true, "{}", summary["ledger"]);
    Ok(())
}

/// Pins the kernel threads that poll the receiver to the sender's CPU.
fn pin_polling_threads() -> Result<()> {
    let name = format!("napi/{}-", veth::RECEIVER);
    let mut pinned = 0;
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let comm = fs::read_to_string(path.join("comm")).unwrap_or_default();
        let id = path.file_name().and_then(|name| name.to_str()).and_then(|id| id.parse().ok());
        if let (true, Some(id)) = (comm.starts_with(&name), id) {
            load::pin(id, CPU)?;
            pinned += 1;
        }
    }
    ensure!(pinned > 0, "no thread is called {name}..");
    Ok(())
}

/// Two CPUs send to one queue, which is polled on either: the other CPU may start to poll the NAPI
/// instance before the probe has seen the end of the previous poll.
fn contended() -> Result<()> {
    const PACKETS: u32 = 40_009;
    namespace::run(|| {
        veth::make(1)?;
        let before = veth::packets_by_queue()?;
        let tracing = Tracing::start(&["--iface", veth::RECEIVER])?;
        let runs = softirqs("NET_RX")?;
        // One CPU may poll what both send, for as long as there is something.
        for _ in 0..10 {
            send_from_two_cpus(PACKETS)?;
            let so_far = softirqs("NET_RX")?;
            if (0..2).all(|cpu| so_far[cpu] - runs[cpu] > u64::from(PACKETS / 32)) {
                break;
            }
        }
        let least = veth::packets_by_queue()?[0] - before[0];
        let summary = tracing.summary()?;
        let most = veth::packets_by_queue()?[0] - before[0];
        let row = queue_row(&summary, 0)?;
        ensure!(least > u64::from(PACKETS) / 2, "too little load: {least}");
        let packets = number(row, "packets")?;
        ensure!((least..=most).contains(&packets), "the driver: {least} to {most}: {row}");
        let busy = series(&summary, |row| {
            row["stage"] == "net_rx" && row["count"].as_u64() > Some(u64::from(PACKETS / 64))
        });
        ensure!(busy.len() == 2, "not polled on two CPUs: {busy:?}");
        Ok(())
    })
}

/// Sends packets to the receiver's first queue, on each of two CPUs at once.
fn send_from_two_cpus(packets: u32) -> Result<()> {
    thread::scope(|scope| {
        let senders = [0, 1].map(|cpu| {
            scope.spawn(move || -> Result<()> {
                load::pin_to(cpu)?;
                let mut sender = veth::sender()?;
                (0..packets).try_for_each(|_| match sender.send(20_000, QUICK_PORT) {
                    // A full ring drops the frame; newer kernels report that.
                    Err(error) if is_full(&error) => Ok(()),
                    sent => sent,
                })
            })
        });
        senders.into_iter().try_for_each(|sender| {
            sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

/// Whether a frame was not sent because the ring was full.
fn is_full(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    cause.and_then(std::io::Error::raw_os_error) == Some(libc::ENOBUFS)
}

/// The only row of a queue of the receiver.
fn queue_row(summary: &Value, queue: u32) -> Result<&Value> {
    let rows = series(summary, |row| {
        row["stage"] == "napi_poll" && row["iface"] == veth::RECEIVER && row["queue"] == queue
    });
    ensure!(rows.len() == 1, "queue {queue}: {} rows in {summary}", rows.len());
    Ok(rows[0])
}
