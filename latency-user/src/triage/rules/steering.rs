//! RPS, RFS and XPS: steering of packets in software.

use super::irq;
use crate::{
    host::cpu::cpus,
    model::{
        finding::Detail,
        remedy::{Change, Remedy, Step, knob::Knob, value::Value},
    },
    triage::{
        placement,
        rule_answer::{Answers, change, crossed, each_interface, found, ok, plain},
        snapshot::{HostSnapshot, Unknown},
    },
};

/// Drivers that choose the TX queue of a packet themselves (`ndo_select_queue`) and do not read XPS.
const OWN_CHOICE: [&str; 4] = ["hv_netvsc", "mana", "vif", "xen_netfront"];

/// Packets sent per second from which XPS matters.
const LOADED: f64 = 1000.0;

/// Values of `file` of each queue whose directory is `KIND-NUMBER`, in numerical order.
fn of_queues<'a>(
    host: &'a HostSnapshot,
    iface: &str,
    kind: &str,
    file: &str,
) -> Result<Vec<(u32, &'a str)>, Unknown> {
    let directory = format!("sys/class/net/{iface}/queues");
    let names = host.second.children(&directory);
    let number = |name: &str| name.strip_prefix(kind)?.parse::<u32>().ok();
    let mut queues: Vec<u32> = names.into_iter().filter_map(number).collect();
    queues.sort_unstable();
    if queues.is_empty() {
        return Err(Unknown(format!("/{directory} shows no {kind}*/{file}")));
    }
    let value = |queue| host.setting(&format!("{directory}/{kind}{queue}/{file}"));
    queues.into_iter().map(|queue| Ok((queue, value(queue)?))).collect()
}

/// RPS on a NIC that has a queue for each CPU.
pub(super) fn rps(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        let masks = of_queues(host, iface, "rx-", "rps_cpus")?;
        let mut changes = Vec::new();
        for (queue, mask) in &masks {
            let now = cpus::parse_mask(mask)?;
            if !now.is_empty() {
                let knob = Knob::Rps { iface: iface.to_owned(), queue: *queue };
                changes.push(Change::new(knob, Value::cpu_mask(&now), Value::cpu_mask(&[])));
            }
        }
        let online = host.online()?.len();
        let text =
            format!("RPS is on in {} of {} RX queues, {online} CPUs", changes.len(), masks.len());
        if changes.is_empty()
            || masks.len() < online
            || !host.interface(iface)?.has_device
            || online < 2
        {
            return Ok(ok(text));
        }
        let source = format!("/sys/class/net/{iface}/queues/rx-*/rps_cpus");
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 25,
            seen: format!("{iface}: {text}: the NIC itself could reach them all."),
            numbers: vec![
                crossed("RX queues", masks.len() as f64, "", online as f64, &source),
                plain("queues with RPS", changes.len() as f64, "", &source),
            ],
            why: "RPS hands each packet to another CPU through a second queue and an interrupt \
                  between CPUs; with a queue for each CPU that is a detour.",
            step: Step::Change(Remedy { changes, namespace: None }),
            iface: Some(iface.to_owned()),
        }))
    })
}

/// RFS set on one side only.
pub(super) fn rfs(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    let key = "net.core.rps_sock_flow_entries";
    let entries = host.number("proc/sys/net/core/rps_sock_flow_entries")?;
    each_interface(host, ifaces, |host, iface| {
        let flows = of_queues(host, iface, "rx-", "rps_flow_cnt")?;
        let on: Vec<&(u32, &str)> = flows.iter().filter(|(_, count)| *count != "0").collect();
        let text = format!(
            "rps_sock_flow_entries {entries}, rps_flow_cnt set in {} of {} queues",
            on.len(),
            flows.len()
        );
        if on.is_empty() || entries != 0 {
            return Ok(ok(text));
        }
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 20,
            seen: format!("{iface}: {text}: RFS needs both, and does nothing."),
            numbers: vec![plain(
                "rps_sock_flow_entries",
                0.0,
                "",
                "/proc/sys/net/core/rps_sock_flow_entries",
            )],
            why: "Packets are not steered to the CPU of the thread that reads them, though \
                  someone meant them to be.",
            step: change(Knob::Sysctl(key), Value::number(0), Value::number(32_768)),
            iface: Some(iface.to_owned()),
        }))
    })
}

/// Several TX queues, none of them assigned to CPUs.
pub(super) fn xps(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        if let Some(answer) = irq::without_device(host, iface)? {
            return Ok(answer);
        }
        let driver = host.nic(iface).ok().and_then(|nic| nic.second.driver.as_deref().ok());
        if let Some(driver) = driver.filter(|driver| OWN_CHOICE.contains(driver)) {
            return Ok(ok(format!("{driver} chooses TX queues itself, without XPS")));
        }
        if host.interface(iface)?.tx_queues == 1 {
            return Ok(ok("one TX queue"));
        }
        let masks = of_queues(host, iface, "tx-", "xps_cpus")?;
        let mut set = 0;
        for (_, mask) in &masks {
            set += usize::from(!cpus::parse_mask(mask)?.is_empty());
        }
        let rate = host.tx_rate(iface)?;
        let text =
            format!("XPS is on in {set} of {} TX queues, {rate:.0} packets/s out", masks.len());
        if set > 0 || rate < LOADED {
            return Ok(ok(text));
        }
        // The IRQ of queue N, whose CPU completes what it sent, is mostly on the N-th CPU.
        let usable = placement::usable(host)?;
        let changes: Vec<Change> = masks
            .iter()
            .take(usable.len())
            .enumerate()
            .map(|(at, (queue, _))| {
                // With fewer queues than CPUs, a queue serves several.
                let served: Vec<u32> =
                    usable.iter().skip(at).step_by(masks.len()).copied().collect();
                let knob = Knob::Xps { iface: iface.to_owned(), queue: *queue };
                Change::new(knob, Value::cpu_mask(&[]), Value::cpu_mask(&served))
            })
            .collect();
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 16,
            seen: format!("{iface}: {text}."),
            numbers: vec![crossed("packets sent", rate, "/s", LOADED, "/proc/net/dev")],
            why: "CPUs then share TX queues and their locks, and packets complete on other CPUs \
                  than those that sent them.",
            step: Step::Change(Remedy { changes, namespace: None }),
            iface: Some(iface.to_owned()),
        }))
    })
}
