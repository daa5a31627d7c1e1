//! `irq:IF/QUEUE=CPUS` and `irq:IF=spread`: which CPUs handle the hard IRQ of an RX queue, and with
//! it the softirq that polls the queue.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};

use super::{Assignment, Scope, Tunable, online_cpus};
use crate::{
    experiment::knob::{FileKnob, Form, Knob},
    host::{
        cpu::{cpus, interrupts::Interrupts},
        net::interfaces,
        nic::{
            netdev::{NapiDirectory, NetlinkDirectory},
            queue_irqs::queue_irqs,
        },
        process::processes,
    },
    model::{failure::Failure, note::Note},
};

/// The value that covers all queues.
const SPREAD: &str = "spread";

/// The tunable.
pub(super) struct Irq;

impl Tunable for Irq {
    fn name(&self) -> &'static str {
        "irq"
    }

    fn usage(&self) -> &'static str {
        "IF/QUEUE=CPUS or IF=spread"
    }

    fn describe(&self) -> &'static str {
        "The CPUs that may handle the hard IRQ of an RX queue, and so its softirq. spread: one CPU \
         for each queue of IF, round-robin, CPUs of the device's NUMA node first, and none that is \
         isolated or nohz_full."
    }

    fn plan(&self, target: &str, value: &str, scope: &Scope) -> Result<Vec<Assignment>> {
        let (iface, queue) = match target.split_once('/') {
            Some((iface, queue)) => (iface, Some(queue)),
            None => (target, None),
        };
        let directory = scope.interface(iface)?;
        let irqs = irqs(iface, scope)?;
        let online = cpus::online(&scope.root)?;
        let planned = match (queue, value) {
            (None, SPREAD) => {
                let near = cpus_of_node(&directory.join("device"), scope)?;
                spread(&irqs, &cpus::usable(&scope.root)?, &near)
            }
            (None, _) => {
                let failure = Failure::new(format!("irq:{iface} takes only spread, not {value:?}"));
                return Err(failure.hint("to set CPUs, name a queue: irq:IF/QUEUE=CPUS").into());
            }
            (Some(queue), list) => {
                let cpus = cpus::list(&online_cpus(list, &online)?);
                let irq = queue.parse().ok().and_then(|queue: u32| irqs.get(&queue));
                let irq =
                    irq.with_context(|| format!("no IRQ is known for queue {queue} of {iface}"));
                vec![(*irq?, cpus)]
            }
        };
        if planned.is_empty() {
            bail!("no IRQ is known for any queue of {iface}");
        }
        planned.into_iter().map(|(irq, value)| assignment(irq, value, scope)).collect()
    }

    fn targets(&self, scope: &Scope) -> Vec<(String, Knob)> {
        let of = |iface: String| -> Vec<_> {
            let irqs = irqs(&iface, scope).unwrap_or_default().into_iter();
            irqs.map(|(queue, irq)| (format!("{iface}/{queue}"), Knob::File(knob(irq, scope))))
                .collect()
        };
        scope.interfaces().into_iter().flat_map(of).collect()
    }

    fn warning(&self, _target: &str, scope: &Scope) -> Option<Note> {
        let directories = processes::directories(&scope.root).ok()?;
        processes::find(&directories).ok()?.irqbalance.then_some(Note::IrqbalanceRuns)
    }
}

/// The known IRQ of each RX queue of an interface: as the driver reports it, else by its name.
fn irqs(iface: &str, scope: &Scope) -> Result<BTreeMap<u32, u32>> {
    let interfaces = interfaces::list(&scope.root)?;
    let interface = interfaces.iter().find(|interface| interface.name == iface);
    let index = interface.map(|interface| interface.index);
    let index = index.with_context(|| format!("{iface} is gone"))?;
    let named = queue_irqs(&interfaces, &Interrupts::read(&scope.root)?);
    let of_iface = named.into_iter().filter(|((other, _), _)| *other == index);
    let mut irqs: BTreeMap<u32, u32> = of_iface.map(|((_, queue), irq)| (queue, irq)).collect();
    if scope.root == Path::new("/") {
        irqs.extend(reported_irqs(index));
    }
    Ok(irqs)
}

/// The IRQs that the driver reports over netlink; most drivers report none.
fn reported_irqs(index: u32) -> Vec<(u32, u32)> {
    let mut directory = NetlinkDirectory::new();
    let (Ok(queues), Ok(instances)) = (directory.queues(index), directory.instances(index)) else {
        return Vec::new();
    };
    let irq = |napi_id| instances.iter().find(|instance| Some(instance.id) == napi_id)?.irq;
    queues.iter().filter_map(|queue| Some((queue.queue, irq(queue.napi_id)?))).collect()
}

/// One CPU for each IRQ, in queue order: near CPUs first, then the others, then from the start
/// again. An IRQ that serves several queues counts for the first.
fn spread(irqs: &BTreeMap<u32, u32>, online: &[u32], near: &[u32]) -> Vec<(u32, String)> {
    let (near, far): (Vec<u32>, Vec<u32>) = online.iter().partition(|cpu| near.contains(cpu));
    let mut order = near.iter().chain(&far).cycle();
    let mut planned: Vec<(u32, String)> = Vec::new();
    for irq in irqs.values() {
        if planned.iter().any(|(other, _)| other == irq) {
            continue;
        }
        planned.extend(order.next().map(|cpu| (*irq, cpu.to_string())));
    }
    planned
}

/// The CPUs of a device's NUMA node; empty: the node is not known.
fn cpus_of_node(device: &Path, scope: &Scope) -> Result<Vec<u32>> {
    // A virtio device has no node of its own: its parent PCI device has.
    let files = [device.join("numa_node"), device.join("../numa_node")];
    let node = files.iter().find_map(|file| fs::read_to_string(file).ok());
    let Some(node) = node.and_then(|node| node.trim().parse::<u32>().ok()) else {
        return Ok(Vec::new());
    };
    let path = scope.root.join(format!("sys/devices/system/node/node{node}/cpulist"));
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    cpus::parse_list(text.trim()).with_context(|| format!("{}:1", path.display()))
}

fn assignment(irq: u32, value: String, scope: &Scope) -> Result<Assignment> {
    let knob = knob(irq, scope);
    let metadata = fs::metadata(&knob.path)
        .map_err(|error| anyhow!("no IRQ {irq} here: {}: {error}", knob.path.display()))?;
    if metadata.permissions().mode() & 0o222 == 0 {
        bail!("the kernel manages the CPUs of IRQ {irq}: they cannot be set");
    }
    Ok(Assignment { knob: Knob::File(knob), value })
}

/// The file is machine-wide, whatever namespace the interface is in.
fn knob(irq: u32, scope: &Scope) -> FileKnob {
    let path: PathBuf = scope.root.join(format!("proc/irq/{irq}/smp_affinity_list"));
    FileKnob { path, netns: None, form: Form::Cpus }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// `eth0` at NUMA node 1, with RX queues 0 to 2 and IRQs 30 (control), 31, 32 and 33.
    fn host() -> (tempfile::TempDir, Scope) {
        let host = tempfile::tempdir().unwrap();
        let root = host.path();
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("sys/class/net/eth0/ifindex", "2\n");
        let mut table = "    CPU0 CPU1 CPU2 CPU3\n".to_owned();
        for queue in 0..3 {
            put(&format!("sys/class/net/eth0/queues/rx-{queue}/rps_cpus"), "0\n");
        }
        for (irq, name) in [(30, "eth0"), (31, "eth0-rx-0"), (32, "eth0-rx-1"), (33, "eth0-rx-2")] {
            put(&format!("sys/devices/card/msi_irqs/{irq}"), "");
            put(&format!("proc/irq/{irq}/smp_affinity_list"), "0-3\n");
            table += &format!(" {irq}: 1 2 3 4 PCI-MSI 1-edge {name}\n");
        }
        put("proc/interrupts", &table);
        put("sys/devices/card/numa_node", "1\n");
        put("sys/devices/system/node/node1/cpulist", "2-3\n");
        put("sys/devices/system/cpu/online", "0-3\n");
        symlink(root.join("sys/devices/card"), root.join("sys/class/net/eth0/device")).unwrap();
        let scope = Scope { root: root.into(), netns: 1, ifaces: Vec::new() };
        (host, scope)
    }

    fn planned(target: &str, value: &str, scope: &Scope) -> Vec<(String, String)> {
        let assignments = Irq.plan(target, value, scope).unwrap().into_iter();
        let irq = |knob: Knob| {
            let text = knob.to_string();
            text.trim_end_matches("/smp_affinity_list").rsplit('/').next().unwrap().to_owned()
        };
        assignments.map(|assignment| (irq(assignment.knob), assignment.value)).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(irq, cpus)| (irq.to_string(), cpus.to_string())).collect()
    }

    #[test]
    fn a_queue_stands_for_its_irq() {
        let (_host, scope) = host();
        assert_eq!(planned("eth0/1", "3,0-1", &scope), pairs(&[("32", "3,0-1")]));
        assert_eq!(Irq.targets(&scope).len(), 3);
        for (target, value) in [
            ("eth0/3", "1"),
            ("eth0/x", "1"),
            ("eth0/0", "4"),
            ("eth0/0", "spread"),
            ("eth0/0", "0-4000000000"),
            ("eth0", "1"),
            ("eth1", "spread"),
        ] {
            assert!(Irq.plan(target, value, &scope).is_err(), "{target}={value}");
        }
    }

    #[test]
    fn queues_are_spread_over_the_near_cpus_first() {
        let (host, scope) = host();
        let expected = [("31", "2"), ("32", "3"), ("33", "0")];
        assert_eq!(planned("eth0", "spread", &scope), pairs(&expected));
        // An offline CPU gets no IRQs; for a device without a node, all CPUs are near.
        fs::write(host.path().join("sys/devices/system/cpu/online"), "0-2\n").unwrap();
        let expected = [("31", "2"), ("32", "0"), ("33", "1")];
        assert_eq!(planned("eth0", "spread", &scope), pairs(&expected));
        fs::write(host.path().join("sys/devices/card/numa_node"), "-1\n").unwrap();
        let expected = [("31", "0"), ("32", "1"), ("33", "2")];
        assert_eq!(planned("eth0", "spread", &scope), pairs(&expected));
    }

    #[test]
    fn more_queues_than_cpus_start_again() {
        let irqs = BTreeMap::from([(0, 30), (1, 31), (2, 31), (3, 32)]);
        let expected = [(30, "0".to_owned()), (31, "1".to_owned()), (32, "0".to_owned())];
        assert_eq!(spread(&irqs, &[0, 1], &[]), expected);
    }

    #[test]
    fn irqbalance_causes_a_warning() {
        let (host, scope) = host();
        assert_eq!(Irq.warning("", &scope), None);
        let process = host.path().join("proc/17");
        fs::create_dir_all(&process).unwrap();
        fs::write(process.join("comm"), "irqbalance\n").unwrap();
        fs::write(process.join("stat"), "").unwrap();
        assert_eq!(Irq.warning("", &scope), Some(Note::IrqbalanceRuns));
    }

    #[test]
    fn an_irq_that_nobody_may_set_is_refused() {
        let (host, scope) = host();
        let file = host.path().join("proc/irq/31/smp_affinity_list");
        fs::set_permissions(file, fs::Permissions::from_mode(0o444)).unwrap();
        let error = Irq.plan("eth0/0", "1", &scope).unwrap_err().to_string();
        assert!(error.contains("the kernel manages the CPUs of IRQ 31"), "{error}");
    }
}
