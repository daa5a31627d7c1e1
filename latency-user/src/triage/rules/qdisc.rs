//! Queueing disciplines: drops, and one lock for many queues.

use crate::{
    model::{
        finding::Detail,
        remedy::{knob::Knob, shell::quoted, value::Value},
    },
    triage::{
        rule_answer::{Answers, change, crossed, each_interface, found, look, ok, plain},
        snapshot::{HostSnapshot, Unknown},
    },
};

/// Root qdiscs with a queue and a lock per NIC queue, or without any.
const ONE_EACH: [&str; 4] = ["mq", "mqprio", "noqueue", "taprio"];

/// Root qdiscs that are commonly there without anybody's parameters. The others shape, or were
/// configured: what they were told would be lost with them.
const WITHOUT_PARAMETERS: [&str; 2] = ["pfifo_fast", "fq_codel"];

/// Qdiscs that drop or delay packets because they were told to.
const SHAPERS: [&str; 15] = [
    "tbf", "htb", "hfsc", "cake", "netem", "cbq", "etf", "drr", "red", "gred", "sfb", "choke",
    "codel", "pie", "fq_pie",
];

pub(super) fn check(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        let nic = host.nic(iface)?;
        let known = |qdiscs: &Result<Vec<_>, String>| qdiscs.clone().map_err(Unknown);
        let (first, second) = (known(&nic.first.qdiscs)?, known(&nic.second.qdiscs)?);
        let Some(root) = second.iter().find(|qdisc| qdisc.root) else {
            return Err(Unknown("its root qdisc is not shown".into()));
        };
        let before: Option<u32> = first.iter().find(|qdisc| qdisc.root).map(|qdisc| qdisc.drops);
        let drops = before.map_or(0, |before| root.drops.wrapping_sub(before));
        let name = quoted(iface);
        let source = format!("tc -s qdisc show dev {iface}");
        if drops > 0 && SHAPERS.contains(&root.kind.as_str()) {
            return Ok(ok(format!(
                "the qdisc {} dropped {drops} packets, as its configuration has it",
                root.kind
            )));
        }
        if drops > 0 {
            return Ok(found(Detail {
                subject: Some(iface.to_owned()),
                weight: 57,
                seen: format!("{iface}: the qdisc {} dropped {drops} packets.", root.kind),
                numbers: vec![
                    crossed("packets dropped", f64::from(drops), "", 1.0, &source),
                    plain("waiting", f64::from(root.backlog), "bytes", &source),
                ],
                why: "Outgoing packets queue up faster than they leave; dropped ones are \
                      retransmitted, after a timeout at worst.",
                step: look(format!("tc -s qdisc show dev {name}")),
                iface: Some(iface.to_owned()),
            }));
        }
        let text = format!("root {}, {} bytes waiting", root.kind, root.backlog);
        let interface = host.interface(iface)?;
        // A software interface has no queues of its own to spread over.
        if !interface.has_device {
            return Ok(ok(text));
        }
        let queues = interface.tx_queues;
        if queues < 2 || ONE_EACH.contains(&root.kind.as_str()) {
            return Ok(ok(text));
        }
        let (Some(now), Some(mq)) = (Value::word(&root.kind), Value::word("mq")) else {
            return Ok(ok(text));
        };
        if !WITHOUT_PARAMETERS.contains(&root.kind.as_str()) {
            return Ok(ok(format!(
                "{text}, for {queues} TX queues: it shapes or was configured, and is left alone"
            )));
        }
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 33,
            seen: format!("{iface} has {queues} TX queues behind a single qdisc, {}.", root.kind),
            numbers: vec![crossed(
                "TX queues",
                f64::from(queues),
                "",
                2.0,
                format!("/sys/class/net/{iface}/queues"),
            )],
            why: "All CPUs that send take turns at one lock, softirqs among them.",
            step: change(Knob::RootQdisc { iface: iface.to_owned() }, now, mq),
            iface: Some(iface.to_owned()),
        }))
    })
}
