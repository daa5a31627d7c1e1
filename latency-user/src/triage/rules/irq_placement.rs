//! Where interrupts and NET_RX run: on one CPU, on the wrong node, or moving around.

use super::irq;
use crate::model::finding::Detail;
use crate::triage::{
    rule_answer::{Answers, all_ok, crossed, each_interface, found, ok, plain, quoted, trace},
    snapshot::{HostSnapshot, Unknown},
};

/// NET_RX runs per second from which their placement matters.
const LOADED: f64 = 1000.0;
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
    if total < LOADED || share < ONE_CPU || online.len() < 2 {
        return all_ok(text);
    }
    let iface = ifaces
        .iter()
        .filter_map(|name| Some((name, host.rx_rate(name).ok()?)))
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .filter(|(_, rate)| *rate > 0.0)
        .map(|(name, _)| name.as_str());
    let (next, undo) = match iface.and_then(|iface| steer(host, iface, &online)) {
        Some((next, undo)) => (next, Some(undo)),
        None => ("mpstat -I SCPU 5 1".into(), None),
    };
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
        next,
        undo,
        confirm: trace(iface),
    })])
}

/// Spreads the first queue of an interface over all CPUs by RPS.
fn steer(host: &HostSnapshot, iface: &str, online: &[u32]) -> Option<(String, String)> {
    let path = format!("sys/class/net/{iface}/queues/rx-0/rps_cpus");
    let old = host.setting(&path).ok()?;
    let target = quoted(&format!("/{path}"));
    Some((format!("echo {} > {target}", mask(online)), format!("echo {old} > {target}")))
}

/// A mask in the format of `rps_cpus`: words of 32 CPUs, the highest first.
fn mask(cpus: &[u32]) -> String {
    let words = cpus.iter().max().map_or(0, |cpu| cpu / 32) as usize + 1;
    let mut bits = vec![0_u32; words];
    for cpu in cpus {
        bits[*cpu as usize / 32] |= 1 << (cpu % 32);
    }
    let words: Vec<String> = bits.iter().rev().map(|word| format!("{word:08x}")).collect();
    words.join(",")
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
        let irqs = irq::of_interface(host, iface)?;
        let far: Vec<u32> = irqs
            .iter()
            .filter(|(_, irq)| irq.cpu().is_some_and(|cpu| !near.contains(&cpu)))
            .map(|(number, _)| *number)
            .collect();
        let active = irqs.values().filter(|irq| irq.total() > 0.0).count();
        let text = format!("{} of {active} active IRQs off its node {node}", far.len());
        let Some(first) = far.first() else { return Ok(ok(text)) };
        let list = format!("proc/irq/{first}/smp_affinity_list");
        let old = host.setting(&list)?;
        let near: Vec<String> = near.iter().map(u32::to_string).collect();
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
            next: format!("echo {} > /{list}", near.join(",")),
            undo: Some(format!("echo {old} > /{list}")),
            confirm: trace(Some(iface)),
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
        let mut changed = Vec::new();
        for irq in irqs {
            let path = format!("proc/irq/{irq}/smp_affinity_list");
            let before = host.first.text(&path)?.trim();
            if before != host.setting(&path)? {
                changed.push((*irq, before));
            }
        }
        let runs = if irqbalance { "irqbalance runs" } else { "irqbalance does not run" };
        let Some((irq, before)) = changed.first() else {
            return Ok(ok(format!("no affinity of {} IRQs changed; {runs}", irqs.len())));
        };
        let (next, undo) = match irqbalance {
            true => ("systemctl stop irqbalance".into(), "systemctl start irqbalance".into()),
            false => {
                let now = host.setting(&format!("proc/irq/{irq}/smp_affinity_list"))?;
                let set = |to: &str| format!("echo {to} > /proc/irq/{irq}/smp_affinity_list");
                (set(before), set(now))
            }
        };
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 42,
            seen: format!(
                "{iface}: the affinity of {} of {} IRQs changed meanwhile; {runs}.",
                changed.len(),
                irqs.len()
            ),
            numbers: vec![crossed(
                "IRQs whose affinity changed",
                changed.len() as f64,
                "",
                1.0,
                "/proc/irq/*/smp_affinity_list",
            )],
            why: "A queue that moves to another CPU finds cold caches, and whatever was set by \
                  hand is lost.",
            next,
            undo: Some(undo),
            confirm: trace(Some(iface)),
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cpu::cpus;

    #[test]
    fn masks_are_read_back_as_they_were() {
        for cpus in [vec![0, 1], vec![0, 31, 32, 255], vec![64]] {
            assert_eq!(cpus::parse_mask(&mask(&cpus)).unwrap(), cpus);
        }
        assert_eq!(mask(&[0, 1, 2, 3]), "0000000f");
    }
}
