//! Queues of a NIC: how many, how evenly used; and its link.

use crate::model::finding::Detail;
use std::collections::BTreeMap;

use super::irq;
use crate::{
    host::nic::directory::Nic,
    triage::{
        rule_answer::{Answers, crossed, each_interface, found, ok, plain, quoted, trace},
        snapshot::{HostSnapshot, Samples, Unknown},
    },
};

/// Packets per second from which the number and balance of queues matter.
const LOADED: f64 = 1000.0;
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
        let (kind, now, most) = match (channels.combined, channels.rx) {
            (Some(now), None | Some(0)) if now > 0 => ("combined", now, channels.combined_max),
            (_, Some(now)) if now > 0 => ("rx", now, channels.rx_max),
            _ => return Err(Unknown("the driver does not report its queues".into())),
        };
        let most = most.ok_or_else(|| Unknown("the driver does not report a maximum".into()))?;
        let cpus = host.online()?.len() as u32;
        let rate = host.rx_rate(iface)?;
        let text = format!("{now} {kind} queues of {most}, {cpus} CPUs, {rate:.0} packets/s in");
        let fitting = most.min(cpus);
        if now >= fitting || rate < LOADED {
            return Ok(ok(text));
        }
        let set = |to: u32| format!("ethtool -L {} {kind} {to}", quoted(iface));
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
                crossed("receive rate", rate, "packets/s", LOADED, "/proc/net/dev"),
            ],
            why: "Each queue is served by one CPU at a time: with few queues packets wait in \
                  line while CPUs idle.",
            next: set(fitting),
            undo: Some(set(now)),
            confirm: trace(Some(iface)),
        }))
    })
}

/// Packets per second of each RX queue, as far as its driver counts them.
fn packets_by_queue(nic: &Samples<&Nic>, seconds: f64) -> Result<BTreeMap<u32, f64>, Unknown> {
    let sums = |nic: &Nic| -> Result<BTreeMap<u32, u64>, Unknown> {
        let counters = nic.counters.as_ref().map_err(|reason| Unknown(reason.clone()))?;
        let mut sums = BTreeMap::new();
        for (name, value) in counters {
            if let Some(queue) = packets_of_queue(name) {
                let sum: &mut u64 = sums.entry(queue).or_default();
                *sum = sum.saturating_add(*value);
            }
        }
        Ok(sums)
    };
    let (first, second) = (sums(nic.first)?, sums(nic.second)?);
    let rate = |queue: &u32, after: &u64| {
        after.saturating_sub(first.get(queue).copied().unwrap_or_default()) as f64 / seconds
    };
    Ok(second.iter().map(|(queue, after)| (*queue, rate(queue, after))).collect())
}

/// The RX queue whose packets a counter counts: `rx_queue_3_packets`,
/// `rx_queue_3_xdp_packets` (veth), `rx3_packets`, `rx-3.packets`, `queue_3_rx_cnt` (ENA).
fn packets_of_queue(name: &str) -> Option<u32> {
    let number = |text: &str| text.parse().ok();
    if let Some(rest) = name.strip_prefix("queue_") {
        return number(rest.strip_suffix("_rx_cnt")?);
    }
    let rest = name.strip_prefix("rx")?;
    let rest = rest.strip_prefix("_queue_").or(rest.strip_prefix('-')).unwrap_or(rest);
    let end = ["_xdp_packets", "_packets", ".packets"];
    number(end.iter().find_map(|end| rest.strip_suffix(end))?)
}

/// One queue that gets most packets.
pub(super) fn imbalance(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        let queues = host.interface(iface)?.rx_queues;
        if queues < 2 {
            return Ok(ok(format!("{queues} RX queues")));
        }
        let by_queue = packets_by_queue(&host.nic(iface)?, host.seconds())?;
        if by_queue.len() < 2 {
            return Err(Unknown("its driver does not count packets by queue".into()));
        }
        let total: f64 = by_queue.values().sum();
        let (queue, rate) = by_queue
            .iter()
            .max_by(|(_, a), (_, b)| a.total_cmp(b))
            .map(|(queue, rate)| (*queue, *rate))
            .unwrap_or_default();
        let share = if total > 0.0 { rate / total * 100.0 } else { 0.0 };
        let threshold = match by_queue.len() {
            0..=3 => ONE_OF_FEW,
            many => f64::max(ONE_OF_MANY, TIMES_MEAN * 100.0 / many as f64),
        };
        let text = format!("queue {queue} got {share:.1} % of {total:.0} packets/s");
        if total < LOADED || share < threshold {
            return Ok(ok(text));
        }
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 50,
            seen: format!("{iface}: {text}, of {} queues.", by_queue.len()),
            numbers: vec![
                crossed("share of one queue", share, "%", threshold, format!("ethtool -S {iface}")),
                plain("packets", total, "/s", format!("ethtool -S {iface}")),
            ],
            why: "The packets of this queue wait in line. One large flow does that, and so does \
                  an indirection table that leaves queues out: check it first.",
            next: format!("ethtool -x {}", quoted(iface)),
            undo: None,
            confirm: trace(Some(iface)),
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
        let text = format!("{speed} Mbit/s, {duplex} duplex");
        let (weight, number) = match (duplex, speed) {
            ("half", _) => (66, plain("speed", speed as f64, "Mbit/s", file("speed"))),
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
            next: format!("ethtool {}", quoted(iface)),
            undo: None,
            confirm: trace(Some(iface)),
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_have_many_names_for_a_queues_packets() {
        for name in [
            "rx_queue_3_packets",
            "rx_queue_3_xdp_packets",
            "rx3_packets",
            "rx-3.packets",
            "queue_3_rx_cnt",
        ] {
            assert_eq!(packets_of_queue(name), Some(3), "{name}");
        }
        for name in ["rx_packets", "tx3_packets", "rx3_bytes", "queue_3_tx_cnt", "rx_xdp_packets"] {
            assert_eq!(packets_of_queue(name), None, "{name}");
        }
    }
}
