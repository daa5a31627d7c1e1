//! Queues of a NIC: how many, how evenly used; and its link.

use std::collections::BTreeMap;

use super::irq;
use crate::{
    host::nic::directory::Nic,
    model::{
        finding::Detail,
        remedy::{
            knob::{EthtoolKind, Knob},
            shell::quoted,
            value::Value,
        },
    },
    triage::{
        nic_counters::Counters,
        placement,
        rule_answer::{Answers, change, crossed, each_interface, found, look, ok, plain},
        snapshot::{HostSnapshot, Samples, Unknown},
    },
};

/// Packets per second from which the number and balance of queues matter.
const LOADED: f64 = 1000.0;
/// Packets per second of each queue from which more queues are worth an interruption of the link.
const LOADED_QUEUE: f64 = 10_000.0;
/// Mbit/s that older kernels show for a speed that is not known (`SPEED_UNKNOWN` in 16 or 32 bits).
const UNKNOWN_SPEEDS: [i64; 2] = [65_535, 4_294_967_295];
/// Mbit/s that no link has.
const FASTEST: i64 = 10_000_000;
/// Packets per second below which a link is idle: the port of a management controller, a spare.
const IDLE_LINK: f64 = 10.0;
/// Mbit/s from which a link is full duplex, whatever its driver says.
const FULL_DUPLEX: i64 = 1000;
/// Mbit/s up to which autonegotiation has probably failed.
const SLOW_LINK: i64 = 100;
/// Share of one queue, percent, among two or three.
const ONE_OF_FEW: f64 = 90.0;
/// Share of one queue, percent, among more; and this many times the mean.
const ONE_OF_MANY: f64 = 50.0;
const TIMES_MEAN: f64 = 3.0;

/// Fewer queues than CPUs, where there could be more.
pub(super) fn count(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        let nic = host.nic(iface)?;
        let channels = nic.second.channels.as_ref().map_err(|reason| Unknown(reason.clone()))?;
        let rx_only = channels.rx.unwrap_or(0);
        let (kind, now, most) = match (channels.combined, channels.rx) {
            (Some(now), _) if now > 0 => ("combined", now, channels.combined_max),
            (_, Some(now)) if now > 0 => ("rx", now, channels.rx_max),
            _ => return Err(Unknown("the driver does not report its queues".into())),
        };
        let most = most.ok_or_else(|| Unknown("the driver does not report a maximum".into()))?;
        let cpus = placement::usable(host)?.len() as u32;
        let rate = host.rx_rate(iface)?;
        let text = format!("{now} {kind} queues of {most}, {cpus} CPUs, {rate:.0} packets/s in");
        let interface = host.interface(iface)?;
        let has_lower = interface.lower.as_ref().is_some_and(|lower| !lower.is_empty());
        if nic.second.driver.as_deref() == Ok("hv_netvsc") && has_lower {
            return Ok(ok(format!("{text}; its virtual function carries the packets")));
        }
        if nic.second.driver.as_deref() == Ok("veth") && !has_own_napi(nic.second) {
            return Ok(ok(format!(
                "{text}; without GRO and XDP its packets go to the backlog of the sending CPU, \
                 however many queues it has"
            )));
        }
        let fitting = most.min(cpus.saturating_sub(if kind == "combined" { rx_only } else { 0 }));
        // A change interrupts the link: only for queues that carry something.
        if now >= fitting || rate < f64::from(now) * LOADED_QUEUE {
            return Ok(ok(text));
        }
        let knob =
            Knob::Ethtool { iface: iface.to_owned(), kind: EthtoolKind::Channels, name: kind };
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 44,
            seen: format!("{iface} has {text}."),
            numbers: vec![
                crossed(
                    "queues",
                    f64::from(now),
                    "",
                    f64::from(fitting),
                    format!("ethtool -l {iface}"),
                ),
                crossed(
                    "receive rate",
                    rate,
                    "packets/s",
                    f64::from(now) * LOADED_QUEUE,
                    "/proc/net/dev",
                ),
            ],
            why: "Each queue is served by one CPU at a time: with few queues packets wait in \
                  line while CPUs idle.",
            step: change(knob, Value::number(now), Value::number(fitting)),
            iface: Some(iface.to_owned()),
        }))
    })
}

/// Whether a veth polls its own NAPI instances: with GRO, or an XDP program (not seen here).
fn has_own_napi(nic: &Nic) -> bool {
    nic.features.as_ref().is_ok_and(|features| features.active.iter().any(|on| on == "rx-gro"))
}

/// Packets per second of each RX queue: as the kernel counts them, or else the driver.
fn packets_by_queue(
    nic: &Samples<&Nic>,
    queues: u32,
    seconds: f64,
) -> Result<BTreeMap<u32, f64>, Unknown> {
    let rates = |first: &BTreeMap<u32, u64>, second: &BTreeMap<u32, u64>| -> BTreeMap<u32, f64> {
        let rate = |queue: &u32, after: &u64| {
            after.saturating_sub(first.get(queue).copied().unwrap_or_default()) as f64 / seconds
        };
        // Some drivers list queues that are not in use.
        let in_use = second.iter().filter(|(queue, _)| **queue < queues);
        in_use.map(|(queue, after)| (*queue, rate(queue, after))).collect()
    };
    if let (Ok(first), Ok(second)) = (&nic.first.queue_packets, &nic.second.queue_packets)
        && second.len() > 1
    {
        return Ok(rates(first, second));
    }
    let counters = |nic: &Nic| -> Result<Vec<(String, u64)>, Unknown> {
        nic.counters.clone().map_err(Unknown)
    };
    let (first, second) = (counters(nic.first)?, counters(nic.second)?);
    let driver = nic.second.driver.as_deref().ok();
    let known = Counters::of(driver);
    let by_queue = rates(&known.packets_by_queue(&first), &known.packets_by_queue(&second));
    match (by_queue.len(), driver) {
        (2.., _) => Ok(by_queue),
        (_, Some(driver)) if known.is_known => {
            Err(Unknown(format!("{driver} does not count packets by queue")))
        }
        _ => Err(Unknown("no counter of its driver is known to count packets by queue".into())),
    }
}

/// One queue that gets most packets.
pub(super) fn imbalance(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        let queues = host.interface(iface)?.rx_queues;
        if queues < 2 {
            return Ok(ok(format!("{queues} RX queues")));
        }
        let nic = host.nic(iface)?;
        let by_queue = packets_by_queue(&nic, queues, host.seconds())?;
        let source = match &nic.second.queue_packets {
            Ok(packets) if packets.len() > 1 => "netdev qstats-get".to_owned(),
            _ => format!("ethtool -S {iface}"),
        };
        let total: f64 = by_queue.values().sum();
        let (queue, rate) = by_queue
            .iter()
            .max_by(|(_, a), (_, b)| a.total_cmp(b))
            .map(|(queue, rate)| (*queue, *rate))
            .unwrap_or_default();
        let share = if total > 0.0 { rate / total * 100.0 } else { 0.0 };
        let threshold = match queues {
            0..=3 => ONE_OF_FEW,
            many => f64::max(ONE_OF_MANY, TIMES_MEAN * 100.0 / f64::from(many)),
        };
        let text = format!("queue {queue} got {share:.1} % of {total:.0} packets/s");
        if total < LOADED || share < threshold {
            // The kernel counts what a synthetic device and its virtual function carry together.
            let received = host.rx_rate(iface)?;
            let is_synthetic = host.nic(iface)?.second.driver.as_deref() == Ok("hv_netvsc");
            return match is_synthetic && received >= LOADED && total < received / 2.0 {
                false => Ok(ok(text)),
                true => Ok(ok(format!(
                    "its queues got {total:.0} of {received:.0} packets/s, its virtual function the \
                     others: see that one"
                ))),
            };
        }
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 50,
            seen: format!("{iface}: {text}, of {queues} queues."),
            numbers: vec![
                crossed("share of one queue", share, "%", threshold, &source),
                plain("packets", total, "/s", &source),
            ],
            why: "The packets of this queue wait in line. One large flow does that, and so does \
                  an indirection table that leaves queues out: check it first.",
            step: look(format!("ethtool -x {}", quoted(iface))),
            iface: Some(iface.to_owned()),
        }))
    })
}

/// Half duplex, or a speed that nobody chose.
pub(super) fn link(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        if let Some(answer) = irq::without_device(host, iface)? {
            return Ok(answer);
        }
        let file = |name: &str| format!("sys/class/net/{iface}/{name}");
        let duplex = host.setting(&file("duplex"))?;
        let speed = host.number(&file("speed"))?;
        if UNKNOWN_SPEEDS.contains(&speed) || speed > FASTEST {
            return Err(Unknown("its driver does not report the speed".into()));
        }
        let text = format!("{speed} Mbit/s, {duplex} duplex");
        let rate = host.rx_rate(iface).and_then(|rx| Ok(rx + host.tx_rate(iface)?)).ok();
        let (weight, number) = match (duplex, speed) {
            ("half", FULL_DUPLEX..) => {
                return Ok(ok(format!(
                    "{text}, as the driver says; at this speed there is no half duplex"
                )));
            }
            ("half", _) => (66, plain("speed", speed as f64, "Mbit/s", file("speed"))),
            (_, 1..=SLOW_LINK) if rate.is_some_and(|rate| rate < IDLE_LINK) => {
                return Ok(ok(format!("{text}, almost idle: nothing queues")));
            }
            (_, 1..=SLOW_LINK) => {
                (56, crossed("speed", speed as f64, "Mbit/s", SLOW_LINK as f64, file("speed")))
            }
            (_, ..=0) => return Err(Unknown("its driver does not report the speed".into())),
            _ => return Ok(ok(text)),
        };
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight,
            seen: format!("{iface} runs at {text}."),
            numbers: vec![number],
            why: "A slow link queues what a fast one sends at once, and half duplex waits for \
                  silence: mostly a failed negotiation, a cable or a port.",
            step: look(format!("ethtool {}", quoted(iface))),
            iface: Some(iface.to_owned()),
        }))
    })
}
