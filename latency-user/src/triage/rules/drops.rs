//! Packets dropped by a NIC, or by the cloud behind it.

use crate::model::finding::Detail;
use std::collections::BTreeMap;

use crate::{
    host::nic::directory::Nic,
    triage::{
        rule_answer::{Answers, crossed, each_interface, found, ok, plain, quoted, trace},
        snapshot::{HostSnapshot, Samples, Unknown},
    },
};

/// Substrings of driver counter names for packets that could not be received.
const DROP_NAMES: [&str; 8] =
    ["drop", "discard", "no_buf", "nobuf", "missed", "out_of_buffer", "fifo_err", "alloc_fail"];

/// Suffix of the counters for exceeded limits of a cloud instance (ENA).
const ALLOWANCE: &str = "_allowance_exceeded";

/// The driver counters selected by `wanted` that grew, and by how much.
fn grown(
    nic: &Samples<&Nic>,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(String, u64)>, Unknown> {
    let first = nic.first.counters.as_ref().map_err(|reason| Unknown(reason.clone()))?;
    let second = nic.second.counters.as_ref().map_err(|reason| Unknown(reason.clone()))?;
    let before: BTreeMap<&str, u64> = first.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    Ok(second
        .iter()
        .filter(|(name, _)| wanted(name))
        .filter_map(|(name, value)| {
            let grown = value.saturating_sub(*before.get(name.as_str())?);
            (grown > 0).then(|| (name.clone(), grown))
        })
        .collect())
}

/// Whether a counter counts lost received packets. Drops by an XDP program are intended.
fn is_drop(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let sends = name.starts_with("tx") || name.contains("_tx") || name.contains(".tx");
    !sends
        && !name.contains("xdp")
        && !name.ends_with(ALLOWANCE)
        && DROP_NAMES.iter().any(|part| name.contains(part))
}

/// Received packets that were dropped before the kernel saw them.
pub(super) fn nic(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        let mut lost = Vec::new();
        for name in ["rx_fifo_errors", "rx_missed_errors"] {
            let path = format!("sys/class/net/{iface}/statistics/{name}");
            let before = host.first.text(&path)?.trim().parse::<u64>();
            let after = host.setting(&path)?.parse::<u64>();
            let (Ok(before), Ok(after)) = (before, after) else {
                return Err(Unknown(format!("/{path}:1: expected a count")));
            };
            let count = after.saturating_sub(before);
            if count > 0 {
                lost.push((format!("/{path}"), name.to_owned(), count));
            }
        }
        let nic = host.nic(iface)?;
        let counters = grown(&nic, is_drop);
        let source = format!("ethtool -S {iface}");
        for (name, count) in counters.iter().flatten() {
            lost.push((source.clone(), name.clone(), *count));
        }
        if lost.is_empty() {
            return match counters {
                Ok(_) => Ok(ok("no packet was dropped")),
                Err(Unknown(reason)) => Ok(ok(format!(
                    "no drops in the kernel's counters; the driver's are unknown: {reason}"
                ))),
            };
        }
        let names: Vec<String> =
            lost.iter().take(4).map(|(_, name, count)| format!("{name} +{count}")).collect();
        let (next, undo, ring) = grow_ring(nic.second, iface);
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 82,
            seen: format!("{iface} dropped packets: {}; {ring}.", names.join(", ")),
            numbers: lost
                .iter()
                .map(|(source, name, count)| crossed(name, *count as f64, "", 1.0, source))
                .collect(),
            why: "A dropped TCP segment comes again after 200 ms or more. Drops here mean that \
                  the ring was not emptied in time.",
            next,
            undo,
            confirm: trace(Some(iface)),
        }))
    })
}

/// The command that enlarges the RX ring if possible; else a command that shows its drops.
fn grow_ring(nic: &Nic, iface: &str) -> (String, Option<String>, String) {
    let name = quoted(iface);
    let inspect = (format!("ethtool -S {name}"), None);
    let ((next, undo), ring) = match &nic.rings {
        Ok(rings) => match (rings.rx, rings.rx_max) {
            (Some(now), Some(most)) if now < most => (
                (
                    format!("ethtool -G {name} rx {most}"),
                    Some(format!("ethtool -G {name} rx {now}")),
                ),
                format!("its RX ring has {now} descriptors of {most} that it could have"),
            ),
            (Some(now), _) => (inspect, format!("its RX ring of {now} cannot grow")),
            _ => (inspect, "its RX ring's size is unknown".into()),
        },
        Err(reason) => (inspect, format!("its RX ring's size is unknown: {reason}")),
    };
    (next, undo, ring)
}

/// Limits of the instance that were reached.
pub(super) fn cloud_limits(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        let nic = host.nic(iface)?;
        let is_limit = |name: &str| name.ends_with(ALLOWANCE);
        let reached = grown(&nic, is_limit)?;
        let known = nic.second.counters.iter().flatten().filter(|(name, _)| is_limit(name));
        let since_start: Vec<&(String, u64)> = known.clone().filter(|(_, v)| *v > 0).collect();
        if known.count() == 0 {
            return Ok(ok("the driver counts no limits of an instance"));
        }
        let source = format!("ethtool -S {iface}");
        let (weight, seen, numbers) = match (&reached[..], &since_start[..]) {
            ([], []) => return Ok(ok("no limit of the instance was reached since it started")),
            ([], [(name, value), ..]) => (
                26,
                format!("{iface}: {name} is {value} since the start, and did not grow now."),
                vec![crossed(name, *value as f64, "packets", 1.0, &source)],
            ),
            ([(name, count), ..], _) => (
                88,
                format!("{iface}: {name} grew by {count}: the cloud queued or dropped packets."),
                reached
                    .iter()
                    .map(|(name, count)| crossed(name, *count as f64, "packets", 1.0, &source))
                    .collect(),
            ),
        };
        let mut numbers = numbers;
        numbers.push(plain("receive rate", host.rx_rate(iface)?, "packets/s", "/proc/net/dev"));
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight,
            seen,
            numbers,
            why: "Beyond its allowance an instance's packets are queued or dropped outside of \
                  it: no setting of this host helps, a larger instance or fewer packets do.",
            next: format!("ethtool -S {} | grep allowance", quoted(iface)),
            undo: None,
            confirm: trace(Some(iface)),
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_have_many_names_for_a_lost_packet() {
        for name in [
            "rx_drops",
            "rx_queue_0_drops",
            "rx_out_of_buffer",
            "rx_discards_phy",
            "rx_no_buffer_count",
            "port.rx_discards",
            "rx_missed_errors",
        ] {
            assert!(is_drop(name), "{name}");
        }
        for name in
            ["tx_dropped", "rx_xdp_drops", "rx_packets", "queue_0_tx_drop", "port.tx_dropped_link"]
        {
            assert!(!is_drop(name), "{name}");
        }
    }
}
