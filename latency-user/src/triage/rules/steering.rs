//! RPS, RFS and XPS: steering of packets in software.

use super::irq;
use crate::model::finding::Detail;
use crate::{
    host::cpu::cpus,
    triage::{
        rule_answer::{
            Answers, crossed, each_interface, experiment, found, ok, plain, quoted, sysctl, trace,
        },
        snapshot::{HostSnapshot, Unknown},
    },
};

/// Packets sent per second from which XPS matters.
const LOADED: f64 = 1000.0;

/// Values of `file` of each queue whose directory name starts with `kind`.
fn of_queues<'a>(
    host: &'a HostSnapshot,
    iface: &str,
    kind: &str,
    file: &str,
) -> Result<Vec<(String, &'a str)>, Unknown> {
    let directory = format!("sys/class/net/{iface}/queues");
    let names = host.second.children(&directory);
    let queues: Vec<&str> = names.into_iter().filter(|name| name.starts_with(kind)).collect();
    if queues.is_empty() {
        return Err(Unknown(format!("/{directory} shows no {kind}*/{file}")));
    }
    queues
        .into_iter()
        .map(|queue| {
            let path = format!("{directory}/{queue}/{file}");
            let value = host.setting(&path)?;
            Ok((path, value))
        })
        .collect()
}

/// RPS on a NIC that has a queue for each CPU.
pub(super) fn rps(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        let masks = of_queues(host, iface, "rx-", "rps_cpus")?;
        let mut set = Vec::new();
        for (path, mask) in &masks {
            if !cpus::parse_mask(mask)?.is_empty() {
                set.push((path, *mask));
            }
        }
        let online = host.online()?.len();
        let text =
            format!("RPS is on in {} of {} RX queues, {online} CPUs", set.len(), masks.len());
        let Some((path, mask)) = set.first() else { return Ok(ok(text)) };
        if masks.len() < online || !host.interface(iface)?.has_device || online < 2 {
            return Ok(ok(text));
        }
        let write = |to: &str| format!("echo {to} > {}", quoted(&format!("/{path}")));
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 25,
            seen: format!("{iface}: {text}: the NIC itself could reach them all."),
            numbers: vec![
                crossed("RX queues", masks.len() as f64, "", online as f64, format!("/{path}")),
                plain("queues with RPS", set.len() as f64, "", format!("/{path}")),
            ],
            why: "RPS hands each packet to another CPU through a second queue and an interrupt \
                  between CPUs; with a queue for each CPU that is a detour.",
            next: write("0"),
            undo: Some(write(mask)),
            confirm: trace(Some(iface)),
        }))
    })
}

/// RFS set on one side only.
pub(super) fn rfs(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    let key = "net.core.rps_sock_flow_entries";
    let entries = host.number("proc/sys/net/core/rps_sock_flow_entries")?;
    each_interface(host, ifaces, |host, iface| {
        let flows = of_queues(host, iface, "rx-", "rps_flow_cnt")?;
        let on: Vec<&(String, &str)> = flows.iter().filter(|(_, count)| *count != "0").collect();
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
            next: sysctl(key, "32768"),
            undo: Some(sysctl(key, "0")),
            confirm: experiment(key, "32768", Some(iface)),
        }))
    })
}

/// Several TX queues, none of them assigned to CPUs.
pub(super) fn xps(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        if let Some(answer) = irq::without_device(host, iface)? {
            return Ok(answer);
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
        let write = |to: fn(usize) -> u32| {
            let lines: Vec<String> = masks
                .iter()
                .take(32)
                .enumerate()
                .map(|(n, (path, _))| format!("echo {:x} > {}", to(n), quoted(&format!("/{path}"))))
                .collect();
            lines.join("; ")
        };
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 16,
            seen: format!("{iface}: {text}."),
            numbers: vec![crossed("packets sent", rate, "/s", LOADED, "/proc/net/dev")],
            why: "CPUs then share TX queues and their locks, and packets complete on other CPUs \
                  than those that sent them.",
            next: write(|n| 1 << n),
            undo: Some(write(|_| 0)),
            confirm: trace(Some(iface)),
        }))
    })
}
