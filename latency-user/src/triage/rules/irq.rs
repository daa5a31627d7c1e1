//! Hard IRQs: how often they come, and where.

use std::collections::BTreeMap;

use crate::{
    host::cpu::{cpus, interrupts::Interrupts},
    model::{
        finding::Detail,
        remedy::{
            Change, Remedy, Step,
            knob::{EthtoolKind, Knob},
            shell::quoted,
            value::Value,
        },
    },
    triage::{
        placement,
        rule_answer::{
            Answer, Answers, all_ok, crossed, each_interface, found, look, ok, plain, switch,
        },
        snapshot::{HostSnapshot, Samples, Unknown},
    },
};

/// Interrupts per second of one IRQ on one CPU. At 20,000 they are 50 us apart.
const HOT: f64 = 20_000.0;
/// Interrupts per second from which an IRQ counts as carrying traffic.
pub(super) const ACTIVE: f64 = 10.0;
/// Share of an interface's interrupts on one CPU from which it counts as all of them.
const MOST: f64 = 0.95;
/// Interrupts per second of an interface from which their placement matters.
const LOADED: f64 = 1000.0;

const SOURCE: &str = "/proc/interrupts";

/// Rate of one IRQ between the samples.
#[derive(Clone, Debug, Default)]
pub(super) struct IrqRate {
    pub(super) name: String,
    /// Interrupts per second on each CPU.
    pub(super) by_cpu: BTreeMap<u32, f64>,
}

impl IrqRate {
    pub(super) fn total(&self) -> f64 {
        // An empty sum is -0.
        self.by_cpu.values().sum::<f64>() + 0.0
    }

    /// The CPU that handles most of its interrupts.
    pub(super) fn cpu(&self) -> Option<u32> {
        let busiest = self.by_cpu.iter().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        Some(*busiest.0)
    }
}

/// Rates of the numbered IRQs in both samples, on the CPUs in both samples.
pub(super) fn rates(host: &HostSnapshot) -> Result<BTreeMap<u32, IrqRate>, Unknown> {
    let Samples { first, second } = host.interrupts()?;
    let before: BTreeMap<u32, &_> =
        first.lines.iter().filter_map(|line| Some((line.number?, line))).collect();
    let column: BTreeMap<u32, usize> =
        first.cpus.iter().enumerate().map(|(at, cpu)| (*cpu, at)).collect();
    let mut rates = BTreeMap::new();
    for line in &second.lines {
        let Some((number, old)) = line.number.and_then(|n| Some((n, *before.get(&n)?))) else {
            continue;
        };
        // The number was reassigned to another device.
        if old.name != line.name {
            continue;
        }
        let by_cpu = by_cpu(second, &line.counts, &column, &old.counts, host.seconds());
        rates.insert(number, IrqRate { name: line.name.clone(), by_cpu });
    }
    Ok(rates)
}

fn by_cpu(
    second: &Interrupts,
    counts: &[u64],
    column: &BTreeMap<u32, usize>,
    old: &[u64],
    seconds: f64,
) -> BTreeMap<u32, f64> {
    second
        .cpus
        .iter()
        .zip(counts)
        .filter_map(|(cpu, count)| {
            let old = old.get(*column.get(cpu)?)?;
            // The kernel counts in 32 bits.
            let came = (*count as u32).wrapping_sub(*old as u32);
            (came > 0).then(|| (*cpu, f64::from(came) / seconds))
        })
        .collect()
}

/// The IRQs of an interface's device, with their rates.
pub(super) fn of_interface(
    host: &HostSnapshot,
    iface: &str,
) -> Result<BTreeMap<u32, IrqRate>, Unknown> {
    let irqs = &host.interface(iface)?.msi_irqs;
    if irqs.is_empty() {
        return Err(Unknown("its IRQs are unknown".into()));
    }
    let Samples { first, second } = host.interrupts()?;
    let wanted = irqs.iter().copied().collect();
    if let Some(error) = first.damage(&wanted).or(second.damage(&wanted)) {
        return Err(Unknown(error.to_owned()));
    }
    let mut rates = rates(host)?;
    rates.retain(|number, _| irqs.contains(number));
    Ok(rates)
}

/// IRQs that come too often for one CPU.
pub(super) fn hot(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    let rates = rates(host)?;
    let mut answers = Vec::new();
    let mut most = 0.0_f64;
    for (number, irq) in &rates {
        let Some((cpu, rate)) = irq.by_cpu.iter().max_by(|(_, a), (_, b)| a.total_cmp(b)) else {
            continue;
        };
        most = most.max(*rate);
        if *rate < HOT {
            continue;
        }
        // Ports that share a device share its IRQs: whose this one is, only its name tells.
        let mut owners = ifaces
            .iter()
            .filter(|name| host.interface(name).is_ok_and(|nic| nic.msi_irqs.contains(number)));
        let owner = owners.next().filter(|_| owners.next().is_none());
        let adaptive = owner.and_then(|iface| {
            Some((iface, host.nic(iface).ok()?.second.coalescing.as_ref().ok()?.adaptive_rx?))
        });
        let (about, step) = match adaptive {
            // The driver can adapt, and does not.
            Some((iface, false)) => ("", switch(iface, EthtoolKind::Coalesce, "adaptive-rx", true)),
            Some((iface, true)) => (
                " Its driver adapts the rate to the load already.",
                look(format!("ethtool -c {}", quoted(iface))),
            ),
            None => ("", look(format!("grep . /proc/irq/{number}/smp_affinity_list"))),
        };
        answers.push(found(Detail {
            subject: Some(format!("IRQ {number}")),
            weight: 52,
            seen: format!(
                "IRQ {number} ({}) comes {rate:.0} times a second on CPU {cpu}.{about}",
                irq.name
            ),
            numbers: vec![crossed(format!("IRQ {number} on CPU {cpu}"), *rate, "/s", HOT, SOURCE)],
            why: "Each interrupt costs its CPU a few microseconds before any packet is \
                      processed; coalescing handles more packets for each.",
            step,
            iface: owner.cloned(),
        }));
    }
    match answers.is_empty() {
        true => all_ok(format!("no IRQ comes more than {most:.0} times a second on one CPU")),
        false => Ok(answers),
    }
}

/// All queues of an interface interrupting the same CPU.
pub(super) fn one_cpu(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        let interface = host.interface(iface)?;
        if !interface.has_device {
            return Ok(ok("it has no device, and so no IRQs"));
        }
        if interface.rx_queues < 2 {
            return Ok(ok(format!("{} RX queue", interface.rx_queues)));
        }
        let mut active = of_interface(host, iface)?;
        active.retain(|_, irq| irq.total() >= ACTIVE);
        let total = active.values().map(IrqRate::total).sum::<f64>() + 0.0;
        let mut by_cpu: BTreeMap<u32, f64> = BTreeMap::new();
        for (cpu, rate) in active.values().flat_map(|irq| &irq.by_cpu) {
            *by_cpu.entry(*cpu).or_default() += rate;
        }
        let most = by_cpu.iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
        let (cpu, rate) = most.map_or((0, 0.0), |(cpu, rate)| (*cpu, *rate));
        let cpus: Vec<u32> = by_cpu.keys().copied().collect();
        let text = format!("{total:.0} interrupts/s of {} IRQs on CPUs {cpus:?}", active.len());
        let usable = placement::near_or_all(host, iface)?;
        // Now and then one comes elsewhere, when an affinity is changed or a CPU goes to sleep.
        if active.len() < 2 || rate < MOST * total || total < LOADED || usable.len() < 2 {
            return Ok(ok(text));
        }
        let online = host.online()?.len();
        let irqs: Vec<u32> = active.keys().copied().collect();
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 78,
            seen: format!(
                "{iface}: {:.1} % of {total:.0} interrupts/s of {} IRQs on CPU {cpu}, of {online} \
                 that are online.",
                rate / total * 100.0,
                active.len()
            ),
            numbers: vec![
                crossed("interrupts on one CPU", rate, "/s", LOADED, SOURCE),
                plain("IRQs with traffic", active.len() as f64, "", SOURCE),
            ],
            why: "Several queues share the work only when several CPUs serve them: here each \
                  queue waits for the others.",
            step: spread(host, &irqs, &usable),
            iface: Some(iface.to_owned()),
        }))
    })
}

/// Gives each IRQ a CPU of its own, in the order of `cpus`. Without the old values nothing may be
/// changed.
fn spread(host: &HostSnapshot, irqs: &[u32], cpus: &[u32]) -> Step {
    let changes: Option<Vec<Change>> = irqs
        .iter()
        .zip(cpus.iter().cycle())
        .map(|(irq, cpu)| {
            Some(Change::new(affinity(*irq), allowed(host, *irq)?, Value::cpu_list(&[*cpu])))
        })
        .collect();
    match changes {
        Some(mut changes) => {
            changes.retain(|change| change.now != change.advised);
            Step::Change(Remedy { changes, namespace: None })
        }
        None => {
            let files = irqs.iter().map(|irq| format!("/proc/irq/{irq}/smp_affinity_list"));
            look(format!("grep . {}", files.collect::<Vec<_>>().join(" ")))
        }
    }
}

pub(super) fn affinity(irq: u32) -> Knob {
    Knob::IrqAffinity { irq }
}

/// The CPUs that may handle an IRQ; `None`: they are not known, or cannot be set again because all
/// of them are offline.
pub(super) fn allowed(host: &HostSnapshot, irq: u32) -> Option<Value> {
    let cpus = cpus::parse_list(host.setting(&affinity(irq).path()?).ok()?).ok()?;
    can_be_set(host, &cpus).then(|| Value::cpu_list(&cpus))
}

/// Whether the kernel takes these CPUs for an IRQ: one of them is online.
pub(super) fn can_be_set(host: &HostSnapshot, cpus: &[u32]) -> bool {
    host.online().map_or(!cpus.is_empty(), |online| cpus.iter().any(|cpu| online.contains(cpu)))
}

/// The answer for an interface without a device; `None`: it has one.
pub(super) fn without_device(host: &HostSnapshot, iface: &str) -> Result<Option<Answer>, Unknown> {
    let interface = host.interface(iface)?;
    Ok((!interface.has_device).then(|| ok("it has no device")))
}
