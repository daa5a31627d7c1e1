//! Queues of real drivers, in a virtual machine with pairs of NICs on one wire.
//!
//! One end of a pair is in a namespace, so packets go through the driver, its rings, its RSS and its
//! interrupts. `LATENCY_LAB` has the kinds of the machine's NICs, in the order of their pairs.

use std::{
    collections::BTreeMap,
    env, fs,
    net::UdpSocket,
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use latency_tests::tool;
use libtest_mimic::{Failed, Trial};
use netlink_bindings::netdev::{QstatsScope, QueueType, Request};
use netlink_socket2::NetlinkSocket;
use serde_json::Value;

use crate::{
    experiment::{Running, experiment, tunings::shown},
    tracing::{Tracing, latency_user, number, series},
};

/// Kinds of NICs, as `cargo xtask vm --nic` names them.
const KINDS: [&str; 4] = ["igb", "e1000e", "vmxnet3", "virtio-mq"];

/// Addresses that send. RSS of some NICs hashes addresses only, so flows differ in them.
const SENDERS: u8 = 16;
/// Packets of each flow: a prime number.
const PACKETS: u64 = 31;
/// Packets that the kernel sends by itself around a test: ARP, IPv6.
const STRAY: u64 = 5;
const PORT: u16 = 9797;
const NAMESPACE: &str = "peer";

/// The tests of this file: none outside of a lab.
pub(crate) fn trials() -> Vec<Trial> {
    let Ok(lab) = env::var("LATENCY_LAB") else { return Vec::new() };
    let pairs: Vec<&str> = lab.split(',').collect();
    let trials = KINDS.into_iter().flat_map(|kind| {
        let pair = pairs.iter().position(|other| *other == kind);
        [
            lab_trial(kind, "queues_are_named", pair, |nic| named(nic, "fentry")),
            lab_trial(kind, "late_packets_are_named", pair, late),
            lab_trial(kind, "settings_match_ethtool", pair, settings),
            lab_trial(kind, "triage_reads_its_counters", pair, triage),
            lab_trial(kind, "a_lost_link_ends_an_experiment", pair, loses_link),
        ]
    });
    let igb = pairs.iter().position(|other| *other == "igb");
    let by_tracepoint = |nic: &Nic| named(nic, "tracepoint");
    let by_tracepoint = lab_trial("igb", "queues_are_named_by_tracepoint", igb, by_tracepoint);
    let channels = ["igb", "virtio-mq"].into_iter().map(|kind| {
        let pair = pairs.iter().position(|other| *other == kind);
        lab_trial(kind, "a_change_of_channels_is_followed", pair, channels)
    });
    trials.chain([by_tracepoint]).chain(channels).collect()
}

/// A test with one pair of NICs; skipped if the lab lacks them.
#[expect(clippy::print_stderr, reason = "a skip says why, before the harness counts it")]
fn lab_trial(
    kind: &'static str,
    name: &str,
    pair: Option<usize>,
    body: impl Fn(&Nic) -> Result<()> + Send + 'static,
) -> Trial {
    let full = format!("root::lab::{}_{name}", kind.replace('-', "_"));
    if pair.is_none() {
        eprintln!("skipped: {full}: the lab has no {kind}");
    }
    let run = move || {
        let body = || body(&Nic::new(kind, pair.context("no such NIC")?)?);
        body().map_err(|error: anyhow::Error| Failed::from(format!("{error:?}")))
    };
    Trial::test(full, run).with_ignored_flag(pair.is_none())
}

/// The near end of a pair, with the far end in a namespace.
struct Nic {
    kind: &'static str,
    name: String,
    far: String,
}

impl Nic {
    fn new(kind: &'static str, pair: usize) -> Result<Self> {
        let (name, far) = (device(pair, 0)?, device(pair, 1)?);
        tool::run(&format!("ip netns add {NAMESPACE}"))?;
        let nic = Self { kind, name, far };
        let (name, far) = (&nic.name, &nic.far);
        tool::run(&format!("ip link set {far} netns {NAMESPACE}"))?;
        tool::run(&format!("ip addr add 10.9.0.1/24 dev {name}"))?;
        for sender in 0..SENDERS {
            let address = format!("10.9.0.{}/24", 2 + sender);
            tool::run(&format!("ip -n {NAMESPACE} addr add {address} dev {far}"))?;
        }
        tool::run(&format!("ip -n {NAMESPACE} link set {far} up"))?;
        tool::run(&format!("ip link set {name} up"))?;
        nic.wait_for_link()?;
        Ok(nic)
    }

    /// Waits until a packet gets through: drivers negotiate for seconds.
    fn wait_for_link(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        let receiver = UdpSocket::bind(("10.9.0.1", PORT + 1))?;
        receiver.set_read_timeout(Some(Duration::from_millis(200)))?;
        loop {
            // Fails while there is no route.
            let _ = send(&[0], 1, PORT + 1);
            if receiver.recv(&mut [0; 64]).is_ok() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "no packet from {} to {}", self.far, self.name);
        }
    }

    /// Packets received by each queue, as the driver counts them.
    fn packets(&self) -> Result<BTreeMap<u32, u64>> {
        if self.kind == "virtio-mq" {
            return self.packets_by_netlink();
        }
        let text = tool::run(&format!("ethtool -S {}", self.name))?;
        let mut packets = BTreeMap::new();
        let mut queue = 0;
        for line in text.lines() {
            let Some((name, value)) = line.trim().split_once(':') else { continue };
            let (name, value) = (name.trim(), value.trim().parse::<u64>().unwrap_or(0));
            let numbered = |start: &str, end: &str| {
                name.strip_prefix(start)?.strip_suffix(end)?.parse::<u32>().ok()
            };
            match self.kind {
                "igb" => {
                    if let Some(queue) = numbered("rx_queue_", "_packets") {
                        packets.insert(queue, value);
                    }
                }
                "vmxnet3" if name == "Rx Queue#" => queue = value as u32,
                "vmxnet3"
                    if ["ucast pkts rx", "bcast pkts rx", "mcast pkts rx"].contains(&name) =>
                {
                    *packets.entry(queue).or_default() += value;
                }
                "e1000e" if name == "rx_packets" => drop(packets.insert(0, value)),
                _ => {}
            }
        }
        ensure!(!packets.is_empty(), "no packets by queue: {text}");
        Ok(packets)
    }

    /// As [`Self::packets`], for drivers that report to netdev netlink.
    fn packets_by_netlink(&self) -> Result<BTreeMap<u32, u64>> {
        let ifindex: u32 =
            fs::read_to_string(format!("/sys/class/net/{}/ifindex", self.name))?.trim().parse()?;
        let mut request = Request::new().op_qstats_get_dump();
        request.encode().push_ifindex(ifindex).push_scope(QstatsScope::Queue as u32);
        let mut socket = NetlinkSocket::new();
        let mut reply = socket.request(&request)?;
        let mut packets = BTreeMap::new();
        while let Some(queue) = reply.recv() {
            let queue = queue.context("qstats-get")?;
            if queue.get_queue_type()? == QueueType::Rx as u32 {
                packets.insert(queue.get_queue_id()?, queue.get_rx_packets()?.into());
            }
        }
        ensure!(!packets.is_empty(), "qstats-get knows no queue of {}", self.name);
        Ok(packets)
    }

    /// The IRQ of a queue, by the name that its driver gives it.
    fn irq(&self, queue: u32) -> Result<u64> {
        let text = fs::read_to_string("/proc/interrupts")?;
        let name = &self.name;
        let names = [
            format!("{name}-rx-{queue}"),
            format!("{name}-rxtx-{queue}"),
            format!("{name}-TxRx-{queue}"),
            format!("{}-input.{queue}", self.bus_name()?),
        ];
        let mut found = text.lines().filter(|line| {
            line.split_whitespace().last().is_some_and(|last| names.iter().any(|name| name == last))
        });
        let line = found.next().with_context(|| format!("no IRQ of queue {queue}: {text}"))?;
        line.split(':').next().unwrap_or_default().trim().parse().context("no number")
    }

    /// `virtio3`, or an address of PCI.
    fn bus_name(&self) -> Result<String> {
        let path = fs::canonicalize(format!("/sys/class/net/{}/device", self.name))?;
        Ok(path.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        // The far end returns from the namespace that ends.
        let _ = tool::run(&format!("ip netns delete {NAMESPACE}"));
        let _ = tool::run(&format!("ip addr flush dev {}", self.name));
        let _ = tool::run(&format!("ip link set {} down", self.name));
        let end = Instant::now() + Duration::from_secs(10);
        while !fs::exists(format!("/sys/class/net/{}", self.far)).unwrap_or(false)
            && Instant::now() < end
        {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The device of one end of a pair, found by its address.
fn device(pair: usize, end: usize) -> Result<String> {
    let wanted = format!("52:54:00:4e:{pair:02x}:{end:02x}");
    for entry in fs::read_dir("/sys/class/net")? {
        let path = entry?.path();
        // `bonding_masters` is a file among the interfaces.
        let address = fs::read_to_string(path.join("address")).unwrap_or_default();
        if address.trim() == wanted {
            return Ok(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    anyhow::bail!("no device has the address {wanted}")
}

/// Sends `packets` from each of `senders` in the namespace.
fn send(senders: &[u8], packets: u64, port: u16) -> Result<()> {
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let namespace = fs::File::open(format!("/var/run/netns/{NAMESPACE}"))?;
            // SAFETY: changes the namespace of this thread only, which ends here.
            let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            ensure!(entered == 0, "setns: {}", std::io::Error::last_os_error());
            let socket = |sender: &u8| UdpSocket::bind(format!("10.9.0.{}:0", 2 + sender));
            let sockets = senders.iter().map(socket).collect::<Result<Vec<_>, _>>()?;
            for _ in 0..packets {
                for socket in &sockets {
                    socket.send_to(&[7; 64], ("10.9.0.1", port))?;
                }
                // Not faster than an emulated NIC takes them.
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Sends packets for long enough that an emulated tracer gets its turn between them.
fn speak(senders: &[u8]) -> Result<()> {
    for _ in 0..3 {
        send(senders, PACKETS, PORT)?;
        thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// Polls of the NIC that received packets.
fn rows<'a>(summary: &'a Value, nic: &Nic) -> Vec<&'a Value> {
    series(summary, |row| {
        row["stage"] == "napi_poll"
            && row["iface"] == nic.name.as_str()
            && row["packets"].as_u64() > Some(0)
    })
}

/// Every row has the queue whose packets the driver counted, and its IRQ.
fn check(summary: &Value, nic: &Nic, before: &BTreeMap<u32, u64>) -> Result<()> {
    let after = nic.packets()?;
    let mut grown = BTreeMap::new();
    for (queue, packets) in after {
        let packets = packets - before.get(&queue).unwrap_or(&0);
        if packets > 0 {
            grown.insert(queue, packets);
        }
    }
    let rows = rows(summary, nic);
    let mut ours = BTreeMap::new();
    for row in &rows {
        let queue = row["queue"].as_u64().with_context(|| format!("no queue: {row}"))? as u32;
        ensure!(row["named_by"].is_string(), "by what? {row}");
        ensure!(row["irq"].as_u64() == Some(nic.irq(queue)?), "IRQ of queue {queue}: {row}");
        *ours.entry(queue).or_insert(0) += number(row, "packets")?;
    }
    let near = |(queue, packets): (&u32, &u64)| {
        grown.get(queue).is_some_and(|theirs| theirs.abs_diff(*packets) <= STRAY)
    };
    ensure!(
        ours.keys().eq(grown.keys()) && ours.iter().all(near),
        "by queue {ours:?}, the driver: {grown:?}; {rows:?}"
    );
    Ok(())
}

fn named(nic: &Nic, probes: &str) -> Result<()> {
    // Addresses are resolved before counting starts.
    let senders: Vec<u8> = (0..SENDERS).collect();
    let receiver = UdpSocket::bind(("10.9.0.1", PORT))?;
    send(&senders, 1, PORT)?;
    thread::sleep(Duration::from_millis(500));
    let tracing = Tracing::start(&["--iface", &nic.name, "--probes", probes])?;
    let before = nic.packets()?;
    speak(&senders)?;
    let summary = tracing.summary()?;
    drop(receiver);
    check(&summary, nic, &before)
}

/// Packets that come late, then nothing for long, then packets to other queues.
fn late(nic: &Nic) -> Result<()> {
    let senders: Vec<u8> = (0..SENDERS).collect();
    let receiver = UdpSocket::bind(("10.9.0.1", PORT))?;
    send(&senders, 1, PORT)?;
    thread::sleep(Duration::from_millis(500));
    let tracing = Tracing::start(&["--iface", &nic.name, "--interval", "50ms"])?;
    let before = nic.packets()?;
    thread::sleep(Duration::from_secs(2));
    send(&senders[..1], PACKETS, PORT)?;
    thread::sleep(Duration::from_secs(3));
    speak(&senders[1..])?;
    let summary = tracing.summary()?;
    drop(receiver);
    // The only evidence of packets that this driver's queues can have.
    let is_seen = |row: &&Value| nic.kind != "igb" || row["named_by"] == "packets";
    let rows = rows(&summary, nic);
    ensure!(rows.iter().all(is_seen), "not by packets: {rows:?}");
    check(&summary, nic, &before)
}

/// With fewer channels and with all again, packets are still counted in the queue that they took.
fn channels(nic: &Nic) -> Result<()> {
    let senders: Vec<u8> = (0..SENDERS).collect();
    let receiver = UdpSocket::bind(("10.9.0.1", PORT))?;
    let all = shown("-l", &nic.name, "Combined")?;
    let tracing = Tracing::start(&["--iface", &nic.name])?;
    speak(&senders)?;
    for channels in ["2", &*all] {
        tool::run(&format!("ethtool -L {} combined {channels}", nic.name))?;
        nic.wait_for_link()?;
        speak(&senders)?;
    }
    let summary = tracing.summary()?;
    drop(receiver);
    let rows = rows(&summary, nic);
    ensure!(rows.iter().all(|row| row["queue"].is_u64()), "{rows:?}");
    let last = all.parse::<u64>()? - 1;
    ensure!(rows.iter().any(|row| row["queue"] == last), "no queue {last}: {rows:?}");
    ensure!(summary["ledger"]["balanced"] == true, "{}", summary["ledger"]);
    Ok(())
}

/// What each driver can set: the setting, and how `ethtool` shows it.
fn tunables(kind: &str) -> &'static [(&'static str, &'static str, &'static str, &'static str)] {
    const GRO: (&str, &str, &str, &str) =
        ("offload:NIC/generic-receive-offload", "-k", "generic-receive-offload", "off");
    const RING: (&str, &str, &str, &str) = ("ring:NIC/rx", "-g", "RX", "128");
    const COALESCE: (&str, &str, &str, &str) = ("coalesce:NIC/rx-usecs", "-c", "rx-usecs", "50");
    const CHANNELS: (&str, &str, &str, &str) = ("channels:NIC/combined", "-l", "Combined", "2");
    match kind {
        "igb" => &[CHANNELS, RING, COALESCE, GRO],
        "e1000e" => &[RING, COALESCE, GRO],
        "vmxnet3" => &[RING, GRO],
        _ => &[CHANNELS, RING, GRO],
    }
}

/// Each setting, and the CPU of an IRQ, as `ethtool` and `/proc` show them before, during and after
/// experiments.
fn settings(nic: &Nic) -> Result<()> {
    let tunables = tunables(nic.kind);
    let settings: Vec<String> = tunables
        .iter()
        .map(|(setting, .., value)| format!("{}={value}", setting.replace("NIC", &nic.name)))
        .collect();
    let read =
        || tunables.iter().map(|(_, option, name, _)| shown(option, &nic.name, name)).collect();
    let [before, changed, after] = during(&settings, read)?;
    let wanted: Vec<&str> = tunables.iter().map(|(.., value)| *value).collect();
    ensure!(changed == wanted && before != changed, "{settings:?}: {before:?} to {changed:?}");
    ensure!(after == before, "{settings:?}: {before:?}, then {after:?}");
    let path = format!("/proc/irq/{}/smp_affinity_list", nic.irq(0)?);
    fs::write(&path, "0")?;
    let read = || Ok(vec![fs::read_to_string(&path)?.trim().to_owned()]);
    let affinities = during(&[format!("irq:{}/0=3", nic.name)], read)?;
    ensure!(affinities == ["0", "3", "0"].map(|cpu| vec![cpu.to_owned()]), "{affinities:?}");
    Ok(())
}

/// The NIC goes down in the window with the change: the setting is put back, and all is as it was.
fn loses_link(nic: &Nic) -> Result<()> {
    let (setting, option, name, value) = &tunables(nic.kind)[0];
    let directory = tempfile::tempdir()?;
    let before = shown(option, &nic.name, name)?;
    let setting = format!("{}={value}", setting.replace("NIC", &nic.name));
    let mut running =
        Running::start(experiment(directory.path(), &setting)?.args(["--iface", &nic.name]))?;
    running.wait_for("window 2")?;
    tool::run(&format!("ip link set {} down", nic.name))?;
    let seen = running.wait_for("lost its link").and_then(|()| running.wait_for("put back"));
    tool::run(&format!("ip link set {} up", nic.name))?;
    seen?;
    ensure!(running.child.wait()?.code() == Some(4), "a lost link is no success");
    let after = shown(option, &nic.name, name)?;
    ensure!(after == before, "{setting}: {before}, then {after}");
    Ok(())
}

/// What `read` returns before, during and after an experiment with `settings`.
fn during(settings: &[String], read: impl Fn() -> Result<Vec<String>>) -> Result<[Vec<String>; 3]> {
    let directory = tempfile::tempdir()?;
    let before = read()?;
    let mut command = experiment(directory.path(), &settings[0])?;
    settings[1..].iter().for_each(|setting| {
        command.args(["--set", setting]);
    });
    let mut running = Running::start(&mut command)?;
    running.wait_for("window 2")?;
    let changed = read()?;
    running.wait_for("put back")?;
    let after = read()?;
    running.end()?;
    Ok([before, changed, after])
}

/// All packets in one queue: triage names it, by the driver's counters.
fn triage(nic: &Nic) -> Result<()> {
    let receiver = UdpSocket::bind(("10.9.0.1", PORT))?;
    let before = nic.packets()?;
    let judged = thread::scope(|scope| {
        let sending = scope.spawn(|| send(&[0], 1009, PORT));
        let args = ["triage", "--all", "--format", "json", "--duration", "2s", "--no-trace"];
        let output = latency_user()?.args(args).args(["--iface", &nic.name]).output()?;
        sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(matches!(output.status.code(), Some(0 | 4)), "{}: {message}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    })?;
    drop(receiver);
    ensure!(judged.contains(&format!("{}: ", nic.name)), "nothing about {}: {judged}", nic.name);
    if nic.kind == "igb" {
        let after = nic.packets()?;
        let busiest = after.iter().max_by_key(|(queue, packets)| *packets - before[queue]);
        let (queue, _) = busiest.context("no queue")?;
        let answer = format!("{}: queue {queue} got 100.0 % of ", nic.name);
        ensure!(judged.contains(&answer), "{answer:?} is not in {judged}");
    }
    Ok(())
}
