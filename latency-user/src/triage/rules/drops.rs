//! Packets dropped by a NIC, or by the cloud behind it.

use std::collections::BTreeMap;

use crate::{
    host::nic::directory::Nic,
    model::{
        finding::Detail,
        remedy::{
            Step,
            knob::{EthtoolKind, Knob},
            shell::quoted,
            value::Value,
        },
    },
    triage::{
        nic_counters::{Class, Counters, looks_like_loss, sends},
        rule_answer::{Answer, Answers, change, crossed, each_interface, found, look, ok, plain},
        snapshot::{HostSnapshot, Samples, Unknown},
    },
};

/// Suffix of the counters for exceeded limits of a cloud instance (ENA).
const ALLOWANCE: &str = "_allowance_exceeded";
/// Packets up to which drops without a known cause are those of frames for nobody: spanning tree,
/// LLDP.
const UNKNOWN_LEAST: u64 = 100;
/// Share of the received packets, percent, from which drops without a known cause are a finding.
const UNKNOWN_SHARE: f64 = 1.0;

/// The driver counters that grew, and by how much. Counters of equal names add up.
fn grown(nic: &Samples<&Nic>) -> Result<Vec<(String, u64)>, Unknown> {
    let sums = |nic: &Nic| -> Result<BTreeMap<String, u64>, Unknown> {
        let mut sums = BTreeMap::new();
        for (name, value) in nic.counters.as_ref().map_err(|reason| Unknown(reason.clone()))? {
            let sum: &mut u64 = sums.entry(name.trim().to_owned()).or_default();
            *sum = sum.saturating_add(*value);
        }
        Ok(sums)
    };
    let (before, after) = (sums(nic.first)?, sums(nic.second)?);
    let grown = |(name, value): (String, u64)| {
        let grown = value.saturating_sub(*before.get(&name)?);
        (grown > 0).then_some((name, grown))
    };
    Ok(after.into_iter().filter_map(grown).collect())
}

/// What the counters of an interface say of losses between the samples.
#[derive(Default)]
struct Losses {
    /// Source, name and growth of counters of received packets that were lost, by the cause.
    by_class: BTreeMap<Class, Vec<(String, String, u64)>>,
    /// The same for counters that no row of the table knows and that look like losses.
    open: Vec<(String, String, u64)>,
    /// Growth of the kernel's drop column beyond what it counts as missed.
    dropped: u64,
    /// Why the driver's counters are not known.
    unread: Option<String>,
    /// Whether the table has the driver.
    is_known: bool,
    /// Whether packets found no free descriptor: Intel's drivers count them, and they are lost only
    /// if the NIC's own buffer fills up meanwhile.
    no_descriptor: bool,
}

impl Losses {
    fn of(host: &HostSnapshot, iface: &str) -> Result<Self, Unknown> {
        let mut losses = Self::default();
        let dev = host.dev()?;
        if dev.second.damaged.contains_key(iface) {
            host.counters(dev, iface)?;
        }
        if let Ok((before, after)) = host.counters(dev, iface) {
            losses.dropped = after.rx_dropped.saturating_sub(before.rx_dropped);
            let fifo = after.rx_fifo.saturating_sub(before.rx_fifo);
            if fifo > 0 {
                losses.add(Class::NoBuffer, "/proc/net/dev".to_owned(), "fifo", fifo);
            }
        }
        // Those are in the columns of /proc/net/dev, too; `over` is part of its frame errors.
        for name in ["rx_fifo_errors", "rx_missed_errors", "rx_over_errors"] {
            let path = format!("sys/class/net/{iface}/statistics/{name}");
            let number = |text: &str| {
                let number = text.trim().parse::<u64>();
                number.map_err(|_| Unknown(format!("/{path}:1: expected a count, found {text:?}")))
            };
            let (Ok(before), Ok(after)) = (host.first.text(&path), host.second.text(&path)) else {
                // The columns of /proc/net/dev have them, too.
                continue;
            };
            let (before, after) = (number(before)?, number(after)?);
            let count = after.saturating_sub(before);
            if count > 0 {
                if name == "rx_missed_errors" {
                    losses.dropped = losses.dropped.saturating_sub(count);
                }
                losses
                    .by_class
                    .entry(Class::NoBuffer)
                    .or_default()
                    .retain(|(.., other, _)| !(name == "rx_fifo_errors" && other == "fifo"));
                losses.add(Class::NoBuffer, format!("/{path}"), name, count);
            }
        }
        let nic = host.nic(iface)?;
        let driver = nic.second.driver.as_deref().ok();
        let known = Counters::of(driver);
        losses.is_known = known.is_known;
        let source = format!("ethtool -S {iface}");
        match grown(&nic) {
            Ok(grown) => {
                for (name, count) in grown {
                    // Many drivers repeat the kernel's statistics.
                    let is_same =
                        |(_, other, n): &(String, String, u64)| *other == name && *n == count;
                    if losses.by_class.values().flatten().any(is_same) {
                        continue;
                    }
                    match known.class(&name) {
                        Some(Class::NoBuffer | Class::Host | Class::Alloc)
                            if !known.is_known && driver.is_some() =>
                        {
                            // The cause is another driver's.
                            losses.open.push((source.clone(), name, count));
                        }
                        Some(class @ (Class::NoBuffer | Class::Host | Class::Alloc)) => {
                            losses.add(class, source.clone(), &name, count);
                        }
                        Some(_) => losses.no_descriptor |= name == "rx_no_buffer_count",
                        // Captures of older versions lack the driver: its name must do.
                        None if driver.is_none() && looks_like_loss(&name) => {
                            losses.add(Class::NoBuffer, source.clone(), &name, count);
                        }
                        None if looks_like_loss(&name) && !name.ends_with(ALLOWANCE) => {
                            losses.open.push((source.clone(), name, count));
                        }
                        None => {}
                    }
                }
            }
            Err(Unknown(reason)) => losses.unread = Some(reason),
        }
        Ok(losses)
    }

    fn add(&mut self, class: Class, source: String, name: &str, count: u64) {
        self.by_class.entry(class).or_default().push((source, name.to_owned(), count));
    }
}

/// Whether the statistics of an interface are the sum of those below it.
fn is_sum(host: &HostSnapshot, iface: &str) -> bool {
    let driver = host.nic(iface).ok().and_then(|nic| nic.second.driver.as_deref().ok());
    let has_lower = host
        .interface(iface)
        .is_ok_and(|interface| interface.lower.as_ref().is_some_and(|lower| !lower.is_empty()));
    matches!(driver, Some("bonding" | "team")) && has_lower
}

/// Received packets that were lost before the kernel saw them.
pub(super) fn nic(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        if is_sum(host, iface) {
            return Ok(ok("it adds up the interfaces below it"));
        }
        let losses = Losses::of(host, iface)?;
        let lost: Vec<&(String, String, u64)> = losses.by_class.values().flatten().collect();
        if lost.is_empty() {
            return without_known_loss(host, iface, &losses);
        }
        let (about, step) = if losses.by_class.contains_key(&Class::NoBuffer) {
            let (step, ring) = grow_ring(host.nic(iface)?.second, iface);
            (ring, step)
        } else if losses.by_class.contains_key(&Class::Host) && losses.no_descriptor {
            let (step, ring) = grow_ring(host.nic(iface)?.second, iface);
            (format!("there was no free descriptor (rx_no_buffer_count grew): {ring}"), step)
        } else if losses.by_class.contains_key(&Class::Host) {
            let about = "its queue in the NIC was not emptied in time: the bus, or a slow CPU";
            (about.to_owned(), look("mpstat -P ALL -I SCPU 5 1"))
        } else {
            ("there was no memory for them".to_owned(), look("sysctl vm.min_free_kbytes"))
        };
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 82,
            seen: format!("{iface} dropped received packets: {}; {about}.", list(&lost)),
            numbers: lost
                .iter()
                .map(|(source, name, count)| crossed(name, *count as f64, "", 1.0, source))
                .collect(),
            why: "A dropped TCP segment comes again after 200 ms or more. Drops here mean that \
                  the ring was not emptied in time.",
            step,
            iface: Some(iface.to_owned()),
        }))
    })
}

/// The answer if no counter of known meaning tells of a loss.
fn without_known_loss(
    host: &HostSnapshot,
    iface: &str,
    losses: &Losses,
) -> Result<Answer, Unknown> {
    let open: Vec<&(String, String, u64)> = losses.open.iter().collect();
    let received = host.rx_rate(iface)? * host.seconds();
    let share = losses.dropped as f64 / (received + losses.dropped as f64).max(1.0) * 100.0;
    if share >= UNKNOWN_SHARE && losses.dropped >= UNKNOWN_LEAST {
        let mut numbers = vec![
            crossed("drop column", share, "% of packets", UNKNOWN_SHARE, "/proc/net/dev"),
            plain("packets dropped", losses.dropped as f64, "", "/proc/net/dev"),
        ];
        numbers.extend(open.iter().map(|(from, name, n)| plain(name, *n as f64, "", from)));
        return Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 60,
            seen: format!(
                "{iface}: the kernel's drop column grew by {} of {received:.0} received packets; \
                 which of the causes it was (the driver, a filter, an unknown protocol) is open.",
                losses.dropped
            ),
            numbers,
            why: "The column adds up what the driver dropped and what the kernel had no use for. \
                  The driver's own counters may tell them apart.",
            step: look(format!("ethtool -S {}", quoted(iface))),
            iface: Some(iface.to_owned()),
        }));
    }
    if !open.is_empty() {
        return Err(Unknown(format!(
            "what these counters mean for this driver is not known: {}",
            list(&open)
        )));
    }
    if losses.dropped > 0 {
        return Ok(ok(format!(
            "the kernel's drop column grew by {}, which frames of unknown protocols do, too",
            losses.dropped
        )));
    }
    Ok(ok(match &losses.unread {
        None if losses.is_known => {
            "no received packet was dropped, as kernel and driver count".to_owned()
        }
        None => "no drops in the kernel's counters; none of the driver's, whose meaning is not \
                 known, looks like one"
            .to_owned(),
        Some(reason) => {
            format!("no drops in the kernel's counters; the driver's are unknown: {reason}")
        }
    }))
}

fn list(counters: &[&(String, String, u64)]) -> String {
    let names: Vec<String> =
        counters.iter().take(4).map(|(_, name, count)| format!("{name} +{count}")).collect();
    names.join(", ")
}

/// Packets that were dropped when they were sent.
pub(super) fn sent(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        let nic = host.nic(iface)?;
        let known = Counters::of(nic.second.driver.as_deref().ok());
        let mut lost = grown(&nic)?;
        lost.retain(|(name, _)| {
            let is_loss = ["drop", "discard", "timeout"].iter().any(|part| name.contains(part));
            is_loss && (known.class(name) == Some(Class::Tx) || sends(name))
        });
        let Some((name, count)) = lost.iter().max_by_key(|(_, count)| *count) else {
            return Ok(ok(match known.is_known {
                true => "the driver counts no loss of sent packets",
                false => "no counter that looks like a loss of sent packets grew",
            }));
        };
        if !known.is_known {
            return Err(Unknown(format!(
                "what this counter means for this driver is not known: {name} +{count}"
            )));
        }
        let source = format!("ethtool -S {iface}");
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 55,
            seen: format!("{iface} dropped sent packets, not received ones: {name} +{count}."),
            numbers: lost
                .iter()
                .map(|(name, count)| crossed(name, *count as f64, "", 1.0, &source))
                .collect(),
            why: "The segment comes again after 200 ms or more. Its queue was full, or the NIC \
                  refused it.",
            step: look(format!("tc -s qdisc show dev {}", quoted(iface))),
            iface: Some(iface.to_owned()),
        }))
    })
}

/// The step that enlarges the RX ring if possible; else one that shows its drops.
fn grow_ring(nic: &Nic, iface: &str) -> (Step, String) {
    let inspect = look(format!("ethtool -S {}", quoted(iface)));
    match &nic.rings {
        Ok(rings) => match (rings.rx, rings.rx_max) {
            (Some(now), Some(most)) if now < most => {
                let knob =
                    Knob::Ethtool { iface: iface.to_owned(), kind: EthtoolKind::Ring, name: "rx" };
                (
                    change(knob, Value::number(now), Value::number(most)),
                    format!("its RX ring has {now} descriptors of {most} that it could have"),
                )
            }
            (Some(now), _) => (inspect, format!("its RX ring of {now} cannot grow")),
            _ => (inspect, "its RX ring's size is unknown".into()),
        },
        Err(reason) => (inspect, format!("its RX ring's size is unknown: {reason}")),
    }
}

/// Limits of the instance that were reached.
pub(super) fn cloud_limits(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        let nic = host.nic(iface)?;
        let is_limit = |name: &str| name.ends_with(ALLOWANCE);
        let mut reached = grown(&nic)?;
        reached.retain(|(name, _)| is_limit(name));
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
            step: look(format!("ethtool -S {} | grep allowance", quoted(iface))),
            iface: Some(iface.to_owned()),
        }))
    })
}
