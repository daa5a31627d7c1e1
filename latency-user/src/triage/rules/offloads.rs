//! Offloads and coalescing: work that the NIC, or GRO, could take off the CPUs.

use super::irq;
use crate::model::{
    finding::Detail,
    remedy::{
        knob::{EthtoolKind, Knob},
        value::Value,
    },
};
use crate::{
    host::nic::directory::Features,
    triage::{
        rule_answer::{Answer, Answers, change, crossed, each_interface, found, ok, plain, switch},
        snapshot::{HostSnapshot, Unknown},
    },
};

/// Packets per second from which offloads of software interfaces matter.
const LOADED: f64 = 1000.0;
/// Packets per second from which a NIC is in use.
const IN_USE: f64 = 1.0;
/// Delay of an interrupt, us.
const LONG_WAIT_US: u32 = 200;
/// Interrupts per second without coalescing.
const MANY_IRQS: f64 = 20_000.0;

/// An offload: its ethtool name, and the kernel's feature names (one is enough).
struct Offload {
    short: &'static str,
    features: &'static [&'static str],
    weight: u8,
    why: &'static str,
}

const GRO: Offload = Offload {
    short: "gro",
    features: &["rx-gro"],
    weight: 54,
    why: "Without GRO each packet climbs the stack alone: several times the softirq time for the \
          same bytes, and with it longer queues.",
};
const TSO: Offload = Offload {
    short: "tso",
    features: &["tx-tcp-segmentation"],
    weight: 27,
    why: "Without TSO the CPU cuts each large send into packets, in the softirq time that \
          received packets wait for.",
};
const RX_CHECKSUM: Offload = Offload {
    short: "rx",
    features: &["rx-checksum"],
    weight: 29,
    why: "Each received byte is read once more to check its sum, in the softirq.",
};
const TX_CHECKSUM: Offload = Offload {
    short: "tx",
    features: &["tx-checksum-ip-generic", "tx-checksum-ipv4"],
    weight: 29,
    why: "Each sent byte is read once more for its sum, and TSO needs this offload to be on.",
};

fn features<'a>(host: &'a HostSnapshot, iface: &str) -> Result<&'a Features, Unknown> {
    let features = &host.nic(iface)?.second.features;
    features.as_ref().map_err(|reason| Unknown(reason.clone()))
}

/// Judges one offload that should be on.
fn wanted(host: &HostSnapshot, iface: &str, offload: &Offload) -> Result<Answer, Unknown> {
    let features = features(host, iface)?;
    let has = |set: &[String]| offload.features.iter().any(|name| set.iter().any(|on| on == name));
    if has(&features.active) {
        return Ok(ok(format!("{} is on", offload.short)));
    }
    if has(&features.wanted) {
        return Ok(ok(format!(
            "{} is requested, and off because of another offload that it needs",
            offload.short
        )));
    }
    if !has(&features.changeable) {
        return Ok(ok(format!("{} cannot be turned on", offload.short)));
    }
    let rate = host.rx_rate(iface)? + host.tx_rate(iface)?;
    // Interfaces of containers have offloads off by default; that matters only with traffic.
    let threshold = if host.interface(iface)?.has_device { IN_USE } else { LOADED };
    if rate < threshold {
        return Ok(ok(format!("{} is off, at {rate:.0} packets/s", offload.short)));
    }
    Ok(found(Detail {
        subject: Some(iface.to_owned()),
        weight: offload.weight,
        seen: format!("{iface} has {} off, at {rate:.0} packets/s.", offload.short),
        numbers: vec![
            crossed(offload.features[0], 0.0, "", 1.0, format!("ethtool -k {iface}")),
            crossed("packets", rate, "/s", threshold, "/proc/net/dev"),
        ],
        why: offload.why,
        step: switch(iface, EthtoolKind::Offload, offload.short, true),
        iface: Some(iface.to_owned()),
    }))
}

/// Generic receive offload off.
pub(super) fn gro(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| wanted(host, iface, &GRO))
}

/// TCP segmentation offload off.
pub(super) fn tso(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| wanted(host, iface, &TSO))
}

/// Checksum offloads off.
pub(super) fn checksums(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| match wanted(host, iface, &RX_CHECKSUM)? {
        Answer::Ok(rx) => match wanted(host, iface, &TX_CHECKSUM)? {
            Answer::Ok(tx) => Ok(ok(format!("{rx}, {tx}"))),
            other => Ok(other),
        },
        other => Ok(other),
    })
}

/// Large receive offload on a host that forwards.
pub(super) fn lro(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        let features = features(host, iface)?;
        let has = |set: &[String]| set.iter().any(|name| name == "rx-lro");
        if !has(&features.active) {
            return Ok(ok("LRO is off"));
        }
        if !has(&features.changeable) {
            return Ok(ok("LRO is on, and cannot be turned off"));
        }
        let own = host.setting("netns/own")?;
        let path = format!("netns/{own}/ipv4.ip_forward");
        if host.number(&path)? == 0 {
            return Ok(ok("LRO is on, and the host does not forward"));
        }
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 37,
            seen: format!("{iface} has LRO on, and the host forwards packets."),
            numbers: vec![plain("ip_forward", 1.0, "", "/proc/sys/net/ipv4/ip_forward")],
            why: "LRO merges packets beyond repair: forwarded, they are dropped or sent too \
                  large, and their senders time out.",
            step: switch(iface, EthtoolKind::Offload, "lro", false),
            iface: Some(iface.to_owned()),
        }))
    })
}

/// Interrupts with a long delay, or without any delay under load.
pub(super) fn coalescing(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        if let Some(answer) = irq::without_device(host, iface)? {
            return Ok(answer);
        }
        let nic = host.nic(iface)?.second;
        let now = nic.coalescing.as_ref().map_err(|reason| Unknown(reason.clone()))?;
        if now.adaptive_rx == Some(true) {
            return Ok(ok("the driver adapts to the load"));
        }
        let usecs =
            now.rx_usecs.ok_or_else(|| Unknown("the driver does not report rx-usecs".into()))?;
        let source = format!("ethtool -c {iface}");
        let set = |now: u32, to: u32| {
            let name = "rx-usecs";
            let knob = Knob::Ethtool { iface: iface.to_owned(), kind: EthtoolKind::Coalesce, name };
            change(knob, Value::number(now), Value::number(to))
        };
        // With one frame, the interrupt does not wait.
        if usecs >= LONG_WAIT_US && now.rx_frames != Some(1) {
            return Ok(found(Detail {
                subject: Some(iface.to_owned()),
                weight: 39,
                seen: format!("{iface} holds interrupts back for up to {usecs} us."),
                numbers: vec![crossed(
                    "rx-usecs",
                    f64::from(usecs),
                    "us",
                    f64::from(LONG_WAIT_US),
                    source,
                )],
                why: "A lone packet waits that long before it is processed.",
                step: set(usecs, 50),
                iface: Some(iface.to_owned()),
            }));
        }
        let text = format!("rx-usecs {usecs}");
        if usecs > 0 || now.rx_frames.unwrap_or_default() > 1 {
            return Ok(ok(text));
        }
        let irqs = irq::of_interface(host, iface)?;
        let rate = irqs.values().map(irq::IrqRate::total).sum::<f64>() + 0.0;
        if rate < MANY_IRQS {
            return Ok(ok(format!("{text}, at {rate:.0} interrupts/s")));
        }
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 43,
            seen: format!("{iface} raises {rate:.0} interrupts a second without coalescing."),
            numbers: vec![
                plain("rx-usecs", 0.0, "us", source),
                crossed("interrupts", rate, "/s", MANY_IRQS, "/proc/interrupts"),
            ],
            why: "Each interrupt takes time from the packets themselves; a wait of a few \
                  microseconds lets several share one.",
            step: set(0, 20),
            iface: Some(iface.to_owned()),
        }))
    })
}
