//! TCP and UDP counters of each network namespace: drops and retransmissions.

use super::tcp_buffers::{absent, called, each_namespace, inside};
use crate::model::finding::Detail;
use crate::triage::{
    rule_answer::{Answers, crossed, found, look, ok, plain},
    snapshot::{HostSnapshot, Namespace},
};

/// Retransmitted segments, percent of all segments sent.
const RETRANSMITTED: f64 = 2.0;
/// Segments below which a share is not meaningful.
const FEWEST_SEGMENTS: u64 = 1000;

/// Counters that should not grow.
struct SteadyCounters {
    file: &'static str,
    group: &'static str,
    names: &'static [&'static str],
    weight: u8,
    why: &'static str,
    next: &'static str,
}

fn check_steady(host: &HostSnapshot, steady: &SteadyCounters) -> Answers {
    each_namespace(host, |host, namespace| {
        let counters = host.protocols(namespace, steady.file)?;
        let mut grown = Vec::new();
        for name in steady.names {
            match counters.second.grown(&counters.first, steady.group, name) {
                Some(0) => {}
                Some(count) => grown.push((*name, count)),
                None => return Err(absent(&counters, steady.group, name)),
            }
        }
        let Some((name, count)) = grown.first() else {
            return Ok(ok(format!("{} did not grow", steady.names.join(", "))));
        };
        Ok(found(Detail {
            subject: Some(called(namespace)),
            weight: steady.weight,
            seen: format!("In {} {name} grew by {count}.", called(namespace)),
            numbers: grown
                .iter()
                .map(|(name, count)| {
                    crossed(*name, *count as f64, "", 1.0, source(namespace, steady.file))
                })
                .collect(),
            why: steady.why,
            step: look(inside(namespace, steady.next)),
            iface: None,
        }))
    })
}

fn source(namespace: &Namespace, file: &str) -> String {
    match &namespace.pid {
        None => format!("/proc/net/{file}"),
        Some(pid) => format!("/proc/{pid}/net/{file}"),
    }
}

/// Packets for busy sockets whose backlog was full.
pub(super) fn backlog_drops(host: &HostSnapshot, _: &[String]) -> Answers {
    check_steady(
        host,
        &SteadyCounters {
            file: "netstat",
            group: "TcpExt",
            names: &["TCPBacklogDrop"],
            weight: 55,
            why: "While a thread holds a socket, its packets wait in the socket's backlog; those \
                  beyond the receive buffer are dropped and come again after a timeout.",
            next: "ss -tmi",
        },
    )
}

/// Connections that found the accept queue full.
pub(super) fn listen_overflows(host: &HostSnapshot, _: &[String]) -> Answers {
    check_steady(
        host,
        &SteadyCounters {
            file: "netstat",
            group: "TcpExt",
            names: &["ListenOverflows", "ListenDrops"],
            weight: 65,
            why: "Clients try again after a second, then two, then four. ListenOverflows is a \
                  server that does not accept fast enough; ListenDrops alone has other causes, \
                  too, such as a lack of memory.",
            next: "ss -lnt",
        },
    )
}

/// Datagrams that found the socket's buffer full.
pub(super) fn udp_buffer_errors(host: &HostSnapshot, _: &[String]) -> Answers {
    check_steady(
        host,
        &SteadyCounters {
            file: "snmp",
            group: "Udp",
            names: &["RcvbufErrors"],
            weight: 35,
            why: "The reader is too slow or its buffer too small for bursts: dropped datagrams, \
                  such as DNS answers, are requested again after seconds.",
            next: "ss -unmp",
        },
    )
}

/// Retransmitted segments.
pub(super) fn retransmits(host: &HostSnapshot, _: &[String]) -> Answers {
    each_namespace(host, |host, namespace| {
        let counters = host.protocols(namespace, "snmp")?;
        let grown = |name: &str| {
            counters
                .second
                .grown(&counters.first, "Tcp", name)
                .ok_or_else(|| absent(&counters, "Tcp", name))
        };
        let (sent, again) = (grown("OutSegs")?, grown("RetransSegs")?);
        let share = again as f64 / sent.max(1) as f64 * 100.0;
        let text = format!("{again} of {sent} segments were retransmitted");
        if sent < FEWEST_SEGMENTS || share < RETRANSMITTED {
            return Ok(ok(text));
        }
        let source = source(namespace, "snmp");
        Ok(found(Detail {
            subject: Some(called(namespace)),
            weight: 49,
            seen: format!("In {} {text}, {share:.1} %.", called(namespace)),
            numbers: vec![
                crossed("segments retransmitted", share, "%", RETRANSMITTED, &source),
                plain("segments sent", sent as f64, "", &source),
            ],
            why: "Each of them is a packet that was lost or late: the response waits for at \
                  least one round trip more, and for 200 ms or more after a timeout.",
            step: look(inside(namespace, "ss -ti")),
            iface: None,
        }))
    })
}
