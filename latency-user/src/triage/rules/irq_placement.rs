//! Where interrupts and NET_RX run: on one CPU, on the wrong node, or moving around.

use super::irq;
use crate::{
    host::cpu::cpus,
    model::{
        finding::Detail,
        remedy::{Change, Remedy, Step, knob::Knob, value::Value},
    },
    triage::{
        placement,
        rule_answer::{Answers, all_ok, crossed, each_interface, found, look, ok, plain},
        snapshot::{HostSnapshot, Unknown},
    },
};

/// NET_RX runs per second from which their placement matters.
const LOADED: f64 = 1000.0;
/// Share of an interface's interrupts below which an IRQ is not one of its queues'.
const MINOR: f64 = 0.01;
/// Share of one CPU, percent.
const ONE_CPU: f64 = 90.0;

/// Nearly all NET_RX softirqs on one CPU.
pub(super) fn net_rx_on_one_cpu(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    let softirqs = host.softirqs()?;
    let (Some(before), Some(after)) =
        (softirqs.first.counts("NET_RX"), softirqs.second.counts("NET_RX"))
    else {
        return Err(Unknown("/proc/softirqs has no line NET_RX".into()));
    };
    if softirqs.first.cpus != softirqs.second.cpus {
        return Err(Unknown("the CPUs of /proc/softirqs changed meanwhile".into()));
    }
    let rates: Vec<f64> = before
        .iter()
        .zip(after)
        .map(|(before, after)| f64::from(after.wrapping_sub(*before)) / host.seconds())
        .collect();
    let total: f64 = rates.iter().sum();
    let busiest = softirqs.second.cpus.iter().zip(&rates).max_by(|(_, a), (_, b)| a.total_cmp(b));
    let Some((cpu, rate)) = busiest else {
        return Err(Unknown("/proc/softirqs has no CPU".into()));
    };
    let share = if total > 0.0 { rate / total * 100.0 } else { 0.0 };
    let text = format!("{total:.0} NET_RX softirqs/s, {share:.1} % of them on CPU {cpu}");
    let online = host.online()?;
    let usable = placement::usable(host)?;
    if total < LOADED || share < ONE_CPU || usable.len() < 2 {
        return all_ok(text);
    }
    let steered = placement::steered(host, ifaces);
    let steered_count = steered.len();
    let step = steer(host, &steered).unwrap_or_else(|| look("mpstat -I SCPU 5 1"));
    Ok(vec![found(Detail {
        subject: Some(format!("CPU {cpu}")),
        weight: 64,
        seen: format!("{text}, of {} that are online.", online.len()),
        numbers: vec![
            crossed("share of one CPU", share, "%", ONE_CPU, "/proc/softirqs"),
            crossed("NET_RX softirqs", total, "/s", LOADED, "/proc/softirqs"),
        ],
        why: "All packets queue for one CPU while others have time: the queue is where the \
                  tail comes from.",
        step,
        iface: steered.into_iter().next().filter(|_| steered_count == 1),
    })])
}

/// Spreads the first queue of each interface over the CPUs near it by RPS. `None`: there is nothing
/// to spread, or the old values are not known.
fn steer(host: &HostSnapshot, ifaces: &[String]) -> Option<Step> {
    let change = |iface: &String| {
        // A NIC with several queues spreads packets itself: its IRQs, or its hash, are to blame.
        let interface = host.interface(iface).ok()?;
        if interface.has_device && interface.rx_queues > 1 {
            return None;
        }
        let knob = Knob::Rps { iface: iface.clone(), queue: 0 };
        let now = Value::cpu_mask(&cpus::parse_mask(host.setting(&knob.path()?).ok()?).ok()?);
        let near = placement::near_or_all(host, iface).ok().filter(|near| near.len() > 1)?;
        let advised = Value::cpu_mask(&near);
        (now != advised).then(|| Change::new(knob, now, advised))
    };
    let changes: Option<Vec<Change>> = ifaces.iter().map(change).collect();
    let changes = changes.filter(|changes| !changes.is_empty())?;
    Some(Step::Change(Remedy { changes, namespace: None }))
}

/// IRQs of an interface that are handled far from its device.
pub(super) fn numa_node(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        if let Some(answer) = irq::without_device(host, iface)? {
            return Ok(answer);
        }
        let nodes = host.nodes()?;
        if nodes.len() == 1 {
            return Ok(ok("the machine has one NUMA node"));
        }
        let node = host.number(&format!("sys/class/net/{iface}/device/numa_node"))?;
        let near = u32::try_from(node).ok().and_then(|node| nodes.get(&node));
        let Some(near) = near else {
            return Err(Unknown(format!("the firmware does not report its NUMA node ({node})")));
        };
        let near: Vec<u32> =
            placement::usable(host)?.into_iter().filter(|cpu| near.contains(cpu)).collect();
        if near.is_empty() {
            return Ok(ok(format!("its node {node} has no CPU for it")));
        }
        // An IRQ that hardly comes, such as that of the management, may be anywhere.
        let mut irqs = irq::of_interface(host, iface)?;
        let all = irqs.values().map(irq::IrqRate::total).sum::<f64>();
        irqs.retain(|_, irq| irq.total() >= irq::ACTIVE && irq.total() >= all * MINOR);
        let far: Vec<u32> = irqs
            .iter()
            .filter(|(_, irq)| irq.cpu().is_some_and(|cpu| !near.contains(&cpu)))
            .map(|(number, _)| *number)
            .collect();
        let text = format!("{} of {} active IRQs off its node {node}", far.len(), irqs.len());
        let Some(first) = far.first() else { return Ok(ok(text)) };
        let change = |irq: &u32| {
            Some(Change::new(
                irq::affinity(*irq),
                irq::allowed(host, *irq)?,
                Value::cpu_list(&near),
            ))
        };
        let changes: Option<Vec<Change>> = far.iter().map(change).collect();
        let step = match changes {
            Some(changes) => Step::Change(Remedy { changes, namespace: None }),
            None => look(format!("grep . /proc/irq/{first}/smp_affinity_list")),
        };
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 40,
            seen: format!("{iface} has {text}; the first is IRQ {first}."),
            numbers: vec![
                crossed("IRQs off the node", far.len() as f64, "", 1.0, "/proc/interrupts"),
                plain("node", node as f64, "", format!("/sys/class/net/{iface}/device/numa_node")),
            ],
            why: "Every descriptor and packet crosses the link between the nodes, which is slow \
                  and shared with everything else.",
            step,
            iface: Some(iface.to_owned()),
        }))
    })
}

/// IRQs whose affinity changed between the samples.
pub(super) fn moved(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    let irqbalance = host.processes()?.second.irqbalance;
    each_interface(host, ifaces, |host, iface| {
        if let Some(answer) = irq::without_device(host, iface)? {
            return Ok(answer);
        }
        let irqs = &host.interface(iface)?.msi_irqs;
        if irqs.is_empty() {
            return Err(Unknown("its IRQs are unknown".into()));
        }
        let mut changes = Vec::new();
        let mut can_be_restored = true;
        for irq in irqs {
            let path = format!("proc/irq/{irq}/smp_affinity_list");
            let before = cpus::parse_list(host.first.text(&path)?.trim())?;
            let now = cpus::parse_list(host.setting(&path)?)?;
            if before != now {
                can_be_restored &= irq::can_be_set(host, &before) && irq::can_be_set(host, &now);
                let (now, before) = (Value::cpu_list(&now), Value::cpu_list(&before));
                changes.push(Change::new(irq::affinity(*irq), now, before));
            }
        }
        let runs = if irqbalance { "irqbalance runs" } else { "irqbalance does not run" };
        if changes.is_empty() {
            return Ok(ok(format!("no affinity of {} IRQs changed; {runs}", irqs.len())));
        }
        let count = changes.len();
        let step = match irqbalance {
            // It would move them again; what keeps an IRQ from it is an option of its service.
            true => {
                let first = &changes[0].knob;
                let Knob::IrqAffinity { irq } = first else { unreachable!("made above") };
                look(format!(
                    "irqbalance --help | grep banirq; grep . /proc/irq/{irq}/smp_affinity_list"
                ))
            }
            false if can_be_restored => Step::Change(Remedy { changes, namespace: None }),
            // Its CPUs went offline.
            false => look("grep . /proc/irq/*/smp_affinity_list"),
        };
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 42,
            seen: format!(
                "{iface}: the affinity of {count} of {} IRQs changed meanwhile; {runs}.",
                irqs.len()
            ),
            numbers: vec![crossed(
                "IRQs whose affinity changed",
                count as f64,
                "",
                1.0,
                "/proc/irq/*/smp_affinity_list",
            )],
            why: "A queue that moves to another CPU finds cold caches, and whatever was set by \
                  hand is lost. irqbalance leaves alone what its option --banirq names.",
            step,
            iface: Some(iface.to_owned()),
        }))
    })
}
