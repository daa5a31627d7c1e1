//! NAPI settings of an interface: the GRO flush timer, IRQ deferral and threads.

use crate::{
    model::{
        finding::Detail,
        remedy::{knob::Knob, value::Value},
    },
    triage::{
        rule_answer::{Answers, change, crossed, each_interface, found, ok, plain},
        snapshot::HostSnapshot,
    },
};

/// Time for which GRO may hold packets, ns, without any IRQ deferral to go with it.
const HELD_NS: i64 = 100_000;

/// Packets held back by a timer, and IRQ deferral without a timer.
pub(super) fn flush_timeout(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        let file = |name: &str| format!("sys/class/net/{iface}/{name}");
        let timeout = host.number(&file("gro_flush_timeout"))?;
        let deferred = host.number(&file("napi_defer_hard_irqs"))?;
        let text = format!("gro_flush_timeout {timeout} ns, napi_defer_hard_irqs {deferred}");
        let set = |file: &'static str, now: i64| {
            let knob = Knob::Interface { iface: iface.to_owned(), file };
            change(knob, Value::number(now), Value::number(0))
        };
        let (seen, why, step) = match (timeout, deferred) {
            (timeout, 0) if timeout >= HELD_NS => (
                format!("{iface}: {text}: GRO holds packets for up to that time."),
                "Without deferral of IRQs the timer saves little, and adds its time to packets \
                 that wait to be merged.",
                set("gro_flush_timeout", timeout),
            ),
            (0, deferred) if deferred > 0 => (
                format!("{iface}: {text}: deferral needs a timeout, and there is none."),
                "Deferral polls again after the timeout; without one the setting does nothing, \
                 and IRQs come as often as before.",
                set("napi_defer_hard_irqs", deferred),
            ),
            _ => return Ok(ok(text)),
        };
        let source = |name: &str| format!("/{}", file(name));
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 28,
            seen,
            numbers: vec![
                match deferred {
                    0 => crossed(
                        "gro_flush_timeout",
                        timeout as f64,
                        "ns",
                        HELD_NS as f64,
                        source("gro_flush_timeout"),
                    ),
                    _ => plain("gro_flush_timeout", 0.0, "ns", source("gro_flush_timeout")),
                },
                plain("napi_defer_hard_irqs", deferred as f64, "", source("napi_defer_hard_irqs")),
            ],
            why,
            step,
            iface: Some(iface.to_owned()),
        }))
    })
}

/// NAPI in threads of ordinary priority, which compete for CPUs.
pub(super) fn threaded(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    each_interface(host, ifaces, |host, iface| {
        let path = format!("sys/class/net/{iface}/threaded");
        let threaded = host.number(&path)?;
        if threaded == 0 {
            return Ok(ok("polled in softirqs"));
        }
        let knob = Knob::Interface { iface: iface.to_owned(), file: "threaded" };
        Ok(found(Detail {
            subject: Some(iface.to_owned()),
            weight: 18,
            seen: format!("{iface} is polled by threads (threaded {threaded})."),
            numbers: vec![crossed("threaded", threaded as f64, "", 1.0, format!("/{path}"))],
            why: "The threads compete for CPUs like any task: give them a priority, or packets \
                  wait for the scheduler. Stages rx_wait and net_rx do not see them, napi_poll \
                  does.",
            step: change(knob, Value::number(threaded), Value::number(0)),
            iface: Some(iface.to_owned()),
        }))
    })
}
