//! `softnet_stat`: packets that per-CPU processing dropped or left for later.

use crate::{
    host::net::softnet::Softnet,
    model::finding::{Detail, Number},
    triage::{
        rule_answer::{Answers, all_ok, crossed, experiment, found, plain, sysctl, trace},
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
    if softnet.first.len() != softnet.second.len() {
        return Err(Unknown(format!("the CPUs of {SOURCE} changed meanwhile")));
    }
    let lines = softnet.first.iter().zip(&softnet.second).enumerate();
    lines
        .map(|(line, (before, after))| {
            if before.cpu != after.cpu {
                return Err(Unknown(format!("the CPUs of {SOURCE} changed meanwhile")));
            }
            // Without a CPU number, and with CPUs offline, a line cannot be assigned to a CPU.
            let name = match after.cpu {
                Some(cpu) => format!("CPU {cpu}"),
                None => format!("the CPU of line {}", line + 1),
            };
            match (column(before), column(after)) {
                (Some(before), Some(after)) => Ok((name, after.wrapping_sub(before))),
                _ => Err(Unknown(format!("{SOURCE} lacks the column on this kernel"))),
            }
        })
        .collect()
}

/// The command that changes a setting, its undo, and a check.
struct Remedy {
    next: String,
    undo: Option<String>,
    confirm: String,
}

impl Remedy {
    /// Sets `key` from `old` to `new`. Where the old value could not be read (containers do not
    /// show these settings), only shows it, in the network namespace that has the setting.
    fn new(key: &str, old: Option<&str>, new: &str) -> Self {
        match old {
            Some(old) => Self {
                next: sysctl(key, new),
                undo: Some(sysctl(key, old)),
                confirm: experiment(key, new, None),
            },
            None => Self {
                next: format!("nsenter --target 1 --net sysctl {key}"),
                undo: None,
                confirm: trace(None),
            },
        }
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
    let grown = grown(host, |line| Some(line.dropped))?;
    let total: u64 = grown.iter().map(|(_, count)| u64::from(*count)).sum();
    let Some((cpu, worst)) = worst(&grown).filter(|(_, count)| *count > 0) else {
        return all_ok("no packet found a backlog full");
    };
    let key = "net.core.netdev_max_backlog";
    let old = number(host, "netdev_max_backlog");
    let of = old.as_ref().map(|(old, _)| format!(" of {old}")).unwrap_or_default();
    let new = old.as_ref().map_or(0, |(old, _)| old.max(&1000).saturating_mul(2)).to_string();
    let was = old.as_ref().map(|(old, _)| old.to_string());
    let Remedy { next, undo, confirm } = Remedy::new(key, was.as_deref(), &new);
    let mut numbers = vec![crossed("packets dropped", total as f64, "", 1.0, SOURCE)];
    numbers.extend(old.map(|(_, number)| number));
    Ok(vec![found(Detail {
        subject: Some(cpu.clone()),
        weight: 84,
        seen: format!("{total} packets found a backlog{of} full; {cpu} dropped {worst}."),
        numbers,
        why: "A dropped TCP segment comes again after 200 ms or more, the longest tail there \
                  is.",
        next,
        undo,
        confirm,
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
    let key = "net.core.netdev_budget";
    let old = number(host, "netdev_budget");
    let new = old.as_ref().map_or(0, |(old, _)| old.saturating_mul(2)).to_string();
    let was = old.as_ref().map(|(old, _)| old.to_string());
    let Remedy { next, undo, confirm } = Remedy::new(key, was.as_deref(), &new);
    let mut numbers = vec![crossed("time_squeeze", rate, "/s", SQUEEZES, SOURCE)];
    numbers.extend(old.map(|(_, number)| number));
    Ok(vec![found(Detail {
        subject: Some(cpu.clone()),
        weight: 48,
        seen: format!("{cpu} left work undone {rate:.1} times a second (time_squeeze)."),
        numbers,
        why: "The rest waits for the next softirq, or for ksoftirqd. A larger budget \
                  makes each run longer in turn: measure both.",
        next,
        undo,
        confirm,
    })])
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
    let Remedy { next, undo, .. } = Remedy::new(key, old, "0");
    Ok(vec![found(Detail {
        subject: Some(cpu.clone()),
        weight: 38,
        seen: format!("{total} packets of large flows were dropped by the flow limit."),
        numbers: vec![crossed("packets dropped", total as f64, "", 1.0, SOURCE)],
        why: "The limit protects small flows when a backlog is half full: that it acts shows \
                  a CPU that is behind, and the large flow gets drops and retransmissions.",
        next,
        undo,
        confirm: trace(None),
    })])
}
