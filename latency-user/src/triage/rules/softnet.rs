//! `softnet_stat`: what the per-CPU packet processing could not do.

use crate::{
    host::softnet::Softnet,
    triage::{
        answer::{Answers, Found, all_ok, crossed, experiment, plain, sysctl, trace},
        host::{Host, Unknown},
    },
};

const SOURCE: &str = "/proc/net/softnet_stat";

/// Squeezes a second on one CPU.
const SQUEEZES: f64 = 1.0;

/// How much a column grew on each CPU: name of the CPU and count.
fn grown(
    host: &Host,
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
            // Without a number, and with CPUs offline, a line cannot be given to a CPU.
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

fn worst(grown: &[(String, u32)]) -> Option<&(String, u32)> {
    grown.iter().max_by_key(|(_, count)| *count)
}

/// Packets that found the backlog full.
pub(super) fn drops(host: &Host, _: &[String]) -> Answers {
    let grown = grown(host, |line| Some(line.dropped))?;
    let total: u64 = grown.iter().map(|(_, count)| u64::from(*count)).sum();
    let Some((cpu, worst)) = worst(&grown).filter(|(_, count)| *count > 0) else {
        return all_ok("no packet found a backlog full");
    };
    let key = "net.core.netdev_max_backlog";
    let old = host.number("proc/sys/net/core/netdev_max_backlog")?;
    let new = old.max(1000).saturating_mul(2).to_string();
    Ok(vec![
        Found {
            subject: Some(cpu.clone()),
            weight: 84,
            seen: format!("{total} packets found a backlog of {old} full; {cpu} dropped {worst}."),
            numbers: vec![
                crossed("packets dropped", total as f64, "", 1.0, SOURCE),
                plain(key, old as f64, "", "/proc/sys/net/core/netdev_max_backlog"),
            ],
            why: "A dropped TCP segment comes again after 200 ms or more, the longest tail there \
                  is.",
            next: sysctl(key, &new),
            undo: Some(sysctl(key, &old.to_string())),
            confirm: experiment(key, &new, None),
        }
        .answer(),
    ])
}

/// Runs of `net_rx_action` that ended with work left.
pub(super) fn time_squeeze(host: &Host, _: &[String]) -> Answers {
    let grown = grown(host, |line| Some(line.time_squeeze))?;
    let Some((cpu, count)) = worst(&grown) else {
        return Err(Unknown(format!("{SOURCE} is empty")));
    };
    let rate = f64::from(*count) / host.seconds();
    let said = format!("{cpu}: {rate:.1} squeezes/s, the most of all");
    if rate < SQUEEZES {
        return all_ok(said);
    }
    let key = "net.core.netdev_budget";
    let old = host.number("proc/sys/net/core/netdev_budget")?;
    let new = old.saturating_mul(2).to_string();
    Ok(vec![
        Found {
            subject: Some(cpu.clone()),
            weight: 48,
            seen: format!("{cpu} left work undone {rate:.1} times a second (time_squeeze)."),
            numbers: vec![
                crossed("time_squeeze", rate, "/s", SQUEEZES, SOURCE),
                plain(key, old as f64, "", "/proc/sys/net/core/netdev_budget"),
            ],
            why: "What is left waits for the next softirq, or for ksoftirqd. A larger budget \
                  makes each run longer in turn: measure both.",
            next: sysctl(key, &new),
            undo: Some(sysctl(key, &old.to_string())),
            confirm: experiment(key, &new, None),
        }
        .answer(),
    ])
}

/// Packets dropped by the flow limit.
pub(super) fn flow_limit(host: &Host, _: &[String]) -> Answers {
    let grown = grown(host, |line| line.flow_limit)?;
    let total: u64 = grown.iter().map(|(_, count)| u64::from(*count)).sum();
    let Some((cpu, _)) = worst(&grown).filter(|(_, count)| *count > 0) else {
        return all_ok("no packet was dropped by the flow limit");
    };
    let key = "net.core.flow_limit_cpu_bitmap";
    let old = host.setting("proc/sys/net/core/flow_limit_cpu_bitmap")?;
    Ok(vec![
        Found {
            subject: Some(cpu.clone()),
            weight: 38,
            seen: format!("{total} packets of large flows were dropped by the flow limit."),
            numbers: vec![crossed("packets dropped", total as f64, "", 1.0, SOURCE)],
            why: "The limit protects small flows when a backlog is half full: that it acts shows \
                  a CPU that is behind, and the large flow gets drops and retransmissions.",
            next: sysctl(key, "0"),
            undo: Some(sysctl(key, old)),
            confirm: trace(None),
        }
        .answer(),
    ])
}
