//! `softnet_stat`: packets that per-CPU processing dropped or left for later.

use super::settings::{BUDGET, BUDGET_USECS};
use crate::{
    host::{cpu::cpus, net::softnet::Softnet},
    model::{
        finding::{Detail, Number},
        remedy::{Step, knob::Knob, value::Value},
    },
    triage::{
        rule_answer::{Answers, all_ok, change, crossed, found, look, plain},
        snapshot::{HostSnapshot, Unknown},
    },
};

const SOURCE: &str = "/proc/net/softnet_stat";

/// Squeezes per second on one CPU.
const SQUEEZES: f64 = 1.0;

/// Growth of a column on each CPU: name of the CPU and count.
fn grown(
    host: &HostSnapshot,
    column: impl Fn(&Softnet) -> Option<u32>,
) -> Result<Vec<(String, u32)>, Unknown> {
    let softnet = host.softnet()?;
    let column = |before: &Softnet, after: &Softnet, name| match (column(before), column(after)) {
        (Some(before), Some(after)) => Ok((name, after.wrapping_sub(before))),
        _ => Err(Unknown(format!("{SOURCE} lacks the column on this kernel"))),
    };
    let is_numbered = |lines: &[Softnet]| lines.iter().all(|line| line.cpu.is_some());
    if is_numbered(&softnet.first) && is_numbered(&softnet.second) {
        // A CPU that came or went meanwhile does not hide the others.
        let pairs = softnet.second.iter().filter_map(|after| {
            let before = softnet.first.iter().find(|before| before.cpu == after.cpu)?;
            Some((before, after, format!("CPU {}", after.cpu?)))
        });
        return pairs.map(|(before, after, name)| column(before, after, name)).collect();
    }
    if softnet.first.len() != softnet.second.len() {
        return Err(Unknown(format!("the CPUs of {SOURCE} changed meanwhile")));
    }
    // Without a CPU number, and with CPUs offline, a line cannot be assigned to a CPU.
    let lines = softnet.first.iter().zip(&softnet.second).enumerate();
    lines
        .map(|(line, (before, after))| {
            column(before, after, format!("the CPU of line {}", line + 1))
        })
        .collect()
}

/// Sets `key` to `advised`. Where the old value could not be read (containers do not show these
/// settings), only shows it, in the network namespace that has the setting.
fn set(key: &'static str, now: Option<Value>, advised: Value) -> Step {
    match now {
        Some(now) => change(Knob::Sysctl(key), now, advised),
        None => look(format!("nsenter --target 1 --net sysctl {key}")),
    }
}

/// The number of a setting; absent where it cannot be read.
fn number(host: &HostSnapshot, name: &str) -> Option<(i64, Number)> {
    let path = format!("proc/sys/net/core/{name}");
    let value = host.number(&path).ok()?;
    Some((value, plain(format!("net.core.{name}"), value as f64, "", format!("/{path}"))))
}

fn worst(grown: &[(String, u32)]) -> Option<&(String, u32)> {
    grown.iter().max_by_key(|(_, count)| *count)
}

/// Packets that found the backlog full.
pub(super) fn drops(host: &HostSnapshot, _: &[String]) -> Answers {
    let dropped = grown(host, |line| Some(line.dropped))?;
    let sum = |counts: &[(String, u32)]| counts.iter().map(|(_, n)| u64::from(*n)).sum::<u64>();
    // The kernel counts what the flow limit drops as dropped, too, on another CPU perhaps.
    let limited = grown(host, |line| line.flow_limit).map_or(0, |counts| sum(&counts));
    let total = sum(&dropped).saturating_sub(limited);
    let Some((cpu, worst)) = worst(&dropped).filter(|_| total > 0) else {
        return all_ok(match limited {
            0 => "no packet found a backlog full".to_owned(),
            limited => format!("no packet found a backlog full; the flow limit dropped {limited}"),
        });
    };
    let key = "net.core.netdev_max_backlog";
    let old = number(host, "netdev_max_backlog");
    let of = old.as_ref().map(|(old, _)| format!(" of {old}")).unwrap_or_default();
    let new = old.as_ref().map_or(0, |(old, _)| old.max(&1000).saturating_mul(2));
    // The kernel keeps it in 32 bits with a sign.
    let new = new.min(i64::from(i32::MAX));
    let step = set(key, old.as_ref().map(|(old, _)| Value::number(*old)), Value::number(new));
    let mut numbers = vec![crossed("packets dropped", total as f64, "", 1.0, SOURCE)];
    numbers.extend(old.map(|(_, number)| number));
    Ok(vec![found(Detail {
        subject: Some(cpu.clone()),
        weight: 84,
        seen: format!("{total} packets found a backlog{of} full; {cpu} dropped {worst}."),
        numbers,
        why: "A dropped TCP segment comes again after 200 ms or more, the longest tail there \
                  is.",
        step,
        iface: None,
    })])
}

/// Runs of `net_rx_action` that ended with work left.
pub(super) fn time_squeeze(host: &HostSnapshot, _: &[String]) -> Answers {
    let grown = grown(host, |line| Some(line.time_squeeze))?;
    let Some((cpu, count)) = worst(&grown) else {
        return Err(Unknown(format!("{SOURCE} is empty")));
    };
    let rate = f64::from(*count) / host.seconds();
    let text = format!("{cpu}: {rate:.1} squeezes/s, the most of all");
    if rate < SQUEEZES {
        return all_ok(text);
    }
    let budget = number(host, "netdev_budget");
    let usecs = number(host, "netdev_budget_usecs");
    // The budget counts packets as they come from the ring. softnet_stat counts them after GRO, the
    // interfaces before it: a run that used up its budget took that many.
    let packets = packets_of(host, cpu)?.max(received(host));
    let by_time = budget.as_ref().is_some_and(|(budget, _)| {
        let budget = u64::try_from(*budget).unwrap_or(0);
        packets < u64::from(*count).saturating_mul(budget)
    });
    let is_long =
        |value: &Option<(i64, Number)>, long| value.as_ref().is_some_and(|(v, _)| *v >= long);
    let is_long = is_long(&budget, BUDGET) || is_long(&usecs, BUDGET_USECS);
    let (limit, key, old) = match (by_time, &usecs) {
        (true, Some((usecs, _))) => {
            (format!("the time limit of {usecs} us"), "net.core.netdev_budget_usecs", Some(*usecs))
        }
        (true, None) => ("a time limit of two clock ticks".to_owned(), "", None),
        (false, _) => {
            let old = budget.as_ref().map(|(budget, _)| *budget);
            let of = old.map(|old| format!(" of {old} packets")).unwrap_or_default();
            (format!("the budget{of}"), "net.core.netdev_budget", old)
        }
    };
    let step = match old {
        // What is too long already is no remedy for too much work.
        _ if is_long => look("mpstat -I SCPU 5 1"),
        // Kernels before 4.12 have no setting for the time.
        None if key.is_empty() => look("mpstat -I SCPU 5 1"),
        Some(odd) if odd <= 0 => look(format!("sysctl {key}")),
        old => set(
            key,
            old.map(Value::number),
            Value::number(old.unwrap_or_default().saturating_mul(2)),
        ),
    };
    let how = if by_time { "mostly" } else { "perhaps" };
    let mut numbers = vec![crossed("time_squeeze", rate, "/s", SQUEEZES, SOURCE)];
    numbers.push(plain("packets", packets as f64 / host.seconds(), "/s", SOURCE));
    numbers.extend(budget.into_iter().chain(usecs).map(|(_, number)| number));
    Ok(vec![found(Detail {
        subject: Some(cpu.clone()),
        weight: 48,
        seen: format!(
            "{cpu} left work undone {rate:.1} times a second (time_squeeze), {how} at {limit}."
        ),
        numbers,
        why: "The rest waits for the next softirq, or for ksoftirqd. A larger limit \
                  makes each run longer in turn: measure both.",
        step,
        iface: None,
    })])
}

/// Packets that all interfaces of our network namespace received between the samples; 0: not known.
fn received(host: &HostSnapshot) -> u64 {
    let Ok(dev) = host.dev() else { return 0 };
    let grown = dev.second.found.iter().filter_map(|(name, after)| {
        Some(after.rx_packets.saturating_sub(dev.first.found.get(name)?.rx_packets))
    });
    grown.fold(0, u64::saturating_add)
}

/// Packets that a CPU processed between the samples.
fn packets_of(host: &HostSnapshot, name: &str) -> Result<u64, Unknown> {
    let processed = grown(host, |line| Some(line.processed))?;
    let found = processed.iter().find(|(cpu, _)| cpu == name);
    Ok(found.map_or(0, |(_, count)| u64::from(*count)))
}

/// Packets dropped by the flow limit.
pub(super) fn flow_limit(host: &HostSnapshot, _: &[String]) -> Answers {
    let grown = grown(host, |line| line.flow_limit)?;
    let total: u64 = grown.iter().map(|(_, count)| u64::from(*count)).sum();
    let Some((cpu, _)) = worst(&grown).filter(|(_, count)| *count > 0) else {
        return all_ok("no packet was dropped by the flow limit");
    };
    let key = "net.core.flow_limit_cpu_bitmap";
    let old = host.setting("proc/sys/net/core/flow_limit_cpu_bitmap").ok();
    let old = old.and_then(|mask| Some(Value::cpu_mask(&cpus::parse_mask(mask).ok()?)));
    let step = set(key, old, Value::number(0));
    Ok(vec![found(Detail {
        subject: Some(cpu.clone()),
        weight: 38,
        seen: format!("{total} packets of large flows were dropped by the flow limit."),
        numbers: vec![crossed("packets dropped", total as f64, "", 1.0, SOURCE)],
        why: "The limit protects small flows when a backlog is half full: that it acts shows \
                  a CPU that is behind, and the large flow gets drops and retransmissions.",
        step,
        iface: None,
    })])
}
