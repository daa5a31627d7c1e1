//! TCP receive buffers: pruning and collapsing.
//!
//! Counters and settings are per network namespace.

use crate::{
    host::net::protocol_counters::ProtocolCounters,
    model::{
        finding::Detail,
        remedy::{Change, Remedy, Step, knob::Knob, value::Value},
    },
    triage::{
        rule_answer::{Answer, Answers, crossed, found, look, ok, plain},
        snapshot::{HostSnapshot, Namespace, Samples, Unknown},
    },
};

/// `TcpExt` counters that grow when a receive buffer is full.
const COUNTERS: [&str; 4] = ["PruneCalled", "RcvPruned", "OfoPruned", "TCPRcvCollapsed"];
/// Bytes: a maximum up to which collapsing was harmless in the case study.
const HARMLESS: u64 = 4 << 20;
/// Bytes: the maximum of the case study, and the kernel's default since 6.16.
const LARGE: u64 = 32 << 20;
/// Sizes that fixed the case.
const FIXED: [u64; 3] = [4096, 1_048_576, 2_097_152];

const KEY: &str = "net.ipv4.tcp_rmem";

/// Calls `judge` for each namespace.
pub(super) fn each_namespace(
    host: &HostSnapshot,
    judge: impl Fn(&HostSnapshot, &Namespace) -> Result<Answer, Unknown>,
) -> Answers {
    Ok(host
        .namespaces()?
        .iter()
        .map(|namespace| match judge(host, namespace) {
            Ok(Answer::Ok(text)) => ok(format!("{}: {text}", called(namespace))),
            Ok(answer) => answer,
            Err(Unknown(reason)) => Answer::Unknown(format!("{}: {reason}", called(namespace))),
        })
        .collect())
}

/// The name of a namespace in sentences.
pub(super) fn called(namespace: &Namespace) -> String {
    match &namespace.pid {
        None => "this network namespace".into(),
        Some(pid) => format!("network namespace {} (of process {pid})", namespace.inode),
    }
}

/// A command, run in the namespace; without a known process in it, one that lists namespaces.
pub(super) fn inside(namespace: &Namespace, command: &str) -> String {
    match namespace.pid() {
        Ok(Some(pid)) => format!("nsenter --net=/proc/{pid}/ns/net {command}"),
        Ok(None) => command.to_owned(),
        Err(_) => "lsns -t net".to_owned(),
    }
}

/// Why a counter is missing.
pub(super) fn absent(counters: &Samples<ProtocolCounters>, group: &str, name: &str) -> Unknown {
    let damage = |counters: &ProtocolCounters| counters.damage(group, name).map(str::to_owned);
    let damage = damage(&counters.second).or_else(|| damage(&counters.first));
    Unknown(damage.unwrap_or_else(|| format!("the kernel does not count {name}")))
}

fn source(namespace: &Namespace, file: &str) -> String {
    match &namespace.pid {
        None => format!("/proc/net/{file}"),
        Some(pid) => format!("/proc/{pid}/net/{file}"),
    }
}

/// Minimum, default and maximum of a buffer setting.
fn sizes(host: &HostSnapshot, namespace: &Namespace, name: &str) -> Result<[u64; 3], Unknown> {
    let path = format!("netns/{}/ipv4.{name}", namespace.inode);
    let text = host.setting(&path)?;
    let numbers: Option<Vec<u64>> =
        text.split_ascii_whitespace().map(|word| word.parse().ok()).collect();
    numbers
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(|| Unknown(format!("{path}: expected three sizes, found {text:?}")))
}

/// The sizes of the case study, but none larger than the current one.
fn smaller(now: [u64; 3]) -> [u64; 3] {
    let most = now[2].min(FIXED[2]);
    let default = now[1].min(FIXED[1]).min(most);
    [now[0].min(default), default, most]
}

/// Receive queues that were pruned or collapsed between the samples.
pub(super) fn collapse(host: &HostSnapshot, _: &[String]) -> Answers {
    let mut answers = each_namespace(host, collapse_in)?;
    // Reported once for all rules on namespaces.
    if let Ok(hidden) = host.setting("netns/hidden") {
        answers.push(Answer::Unknown(format!(
            "network namespaces of processes that do not show theirs ({hidden}) were not judged"
        )));
    }
    Ok(answers)
}

fn collapse_in(host: &HostSnapshot, namespace: &Namespace) -> Result<Answer, Unknown> {
    let counters = host.protocols(namespace, "netstat")?;
    let mut grown = Vec::new();
    let mut missing = Vec::new();
    for name in COUNTERS {
        match counters.second.grown(&counters.first, "TcpExt", name) {
            Some(0) => {}
            Some(count) => grown.push((name, count)),
            None => missing.push(name),
        }
    }
    if grown.is_empty() {
        return match missing[..] {
            [] => Ok(ok("no receive queue was pruned or collapsed")),
            [only] => Err(absent(&counters, "TcpExt", only)),
            [first, ..] => match counters.second.damage("TcpExt", first) {
                Some(_) => Err(absent(&counters, "TcpExt", first)),
                None => Err(Unknown(format!("the kernel does not count {}", missing.join(", ")))),
            },
        };
    }
    let list: Vec<String> = grown.iter().map(|(name, count)| format!("{name} +{count}")).collect();
    let sizes = sizes(host, namespace, "tcp_rmem");
    let mut numbers: Vec<_> = grown
        .iter()
        .map(|(name, n)| crossed(*name, *n as f64, "", 1.0, source(namespace, "netstat")))
        .collect();
    let (weight, about, step) = match &sizes {
        Ok(now) if now[2] > HARMLESS => {
            numbers.push(crossed(
                "maximum of tcp_rmem",
                now[2] as f64,
                "bytes",
                HARMLESS as f64,
                "/proc/sys/net/ipv4/tcp_rmem",
            ));
            (
                96,
                format!("with buffers of up to {} MiB", now[2] >> 20),
                set(namespace, KEY, Value::numbers(now), Value::numbers(&smaller(*now))),
            )
        }
        Ok(now) => (
            60,
            format!("though buffers are at most {} KiB: the readers are too slow", now[2] >> 10),
            look(inside(namespace, "ss -tmi")),
        ),
        Err(Unknown(reason)) => (
            60,
            format!("and how large buffers may get is unknown: {reason}"),
            look(inside(namespace, &format!("sysctl {KEY}"))),
        ),
    };
    Ok(found(Detail {
        subject: Some(called(namespace)),
        weight,
        seen: format!(
            "In {} TCP receive queues were pruned or collapsed: {}, {about}.",
            called(namespace),
            list.join(", ")
        ),
        numbers,
        why: "The kernel walks and copies a whole receive queue within one softirq; with \
                  buffers of many MiB that takes tens of milliseconds, in which no packet of \
                  that CPU is processed.",
        step,
        iface: None,
    }))
}

/// Changes a sysctl in a namespace.
fn set(namespace: &Namespace, key: &'static str, now: Value, advised: Value) -> Step {
    match namespace.pid() {
        Ok(pid) => {
            let changes = vec![Change::new(Knob::Sysctl(key), now, advised)];
            Step::Change(Remedy { changes, namespace: pid })
        }
        // Its namespace cannot be entered by a process that is not known.
        Err(_) => look("lsns -t net"),
    }
}

/// Buffers as large as in the case study, where collapsing has happened before.
pub(super) fn settings(host: &HostSnapshot, _: &[String]) -> Answers {
    each_namespace(host, |host, namespace| {
        let now = sizes(host, namespace, "tcp_rmem")?;
        let sent = sizes(host, namespace, "tcp_wmem")?;
        let text = format!(
            "tcp_rmem at most {} KiB, tcp_wmem at most {} KiB",
            now[2] >> 10,
            sent[2] >> 10
        );
        // A socket may request this much with SO_RCVBUF. Only the initial namespace has it.
        let asked = match namespace.pid {
            None => host.number("proc/sys/net/core/rmem_max")?,
            Some(_) => 0,
        };
        let largest = now[2].max(u64::try_from(asked).unwrap_or(0));
        if largest < LARGE {
            return Ok(ok(text));
        }
        let counters = host.protocols(namespace, "netstat")?.second;
        let since_start = |name| counters.get("TcpExt", name);
        let (Some(pruned), Some(collapsed)) =
            (since_start("PruneCalled"), since_start("TCPRcvCollapsed"))
        else {
            return Err(Unknown("the kernel does not count PruneCalled, TCPRcvCollapsed".into()));
        };
        if pruned == 0 && collapsed == 0 {
            return Ok(ok(format!("{text}; large, but no queue was ever pruned")));
        }
        let (key, new, old) = match now[2] >= LARGE {
            true => (KEY, Value::numbers(&smaller(now)), Value::numbers(&now)),
            false => ("net.core.rmem_max", Value::number(HARMLESS), Value::number(asked)),
        };
        Ok(found(Detail {
            subject: Some(called(namespace)),
            weight: 41,
            seen: format!(
                "In {} {text}, rmem_max {} KiB; since its start {pruned} receive queues were \
                 pruned and {collapsed} segments collapsed.",
                called(namespace),
                asked >> 10
            ),
            numbers: vec![
                crossed(
                    "largest receive buffer",
                    largest as f64,
                    "bytes",
                    LARGE as f64,
                    format!("/proc/sys/{}", key.replace('.', "/")),
                ),
                crossed("PruneCalled", pruned as f64, "", 1.0, source(namespace, "netstat")),
                plain("TCPRcvCollapsed", collapsed as f64, "", source(namespace, "netstat")),
            ],
            why: "Whenever a reader falls behind again, the kernel will walk buffers of this \
                  size within one softirq. 32 MiB is the kernel's default since 6.16.",
            step: set(namespace, key, old, new),
            iface: None,
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_is_the_case_studys_and_never_raises_anything() {
        assert_eq!(smaller([4096, 5_242_880, 33_554_432]), [4096, 1_048_576, 2_097_152]);
        assert_eq!(smaller([4096, 131_072, 33_554_432]), [4096, 131_072, 2_097_152]);
    }

    #[test]
    fn commands_for_another_namespace_enter_it() {
        let other = Namespace { inode: "4026532000".into(), pid: Some("77".into()) };
        assert_eq!(inside(&other, "ss"), "nsenter --net=/proc/77/ns/net ss");
    }
}
