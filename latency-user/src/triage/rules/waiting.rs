//! Waiting as the kernel accounts for it: CPUs idle because of disks, and pressure (PSI).

use crate::{
    host::pressure::Pressure,
    model::finding::Detail,
    triage::{
        rule_answer::{Answers, all_ok, crossed, found, look},
        snapshot::{HostSnapshot, Unknown},
    },
};

/// Share of all CPU time, percent.
const IOWAIT_ALL: f64 = 5.0;
/// Share of one CPU's time, percent.
const IOWAIT_ONE: f64 = 20.0;
/// Share of the time in which some task waited for a disk, percent.
const IO_SOME: f64 = 10.0;
/// Share of the time in which some runnable task waited for a CPU, percent.
const CPU_SOME: f64 = 25.0;

/// CPUs that had nothing to do because tasks waited for disks.
pub(super) fn iowait(host: &HostSnapshot, _: &[String]) -> Answers {
    let stat = host.stat()?;
    let all = stat.second.all.since(&stat.first.all);
    if all.total() == 0 {
        return Err(Unknown("no clock tick passed between the samples".into()));
    }
    let share = all.percent(all.iowait);
    let worst = super::cpu::worst(stat, |ticks| ticks.iowait);
    let (cpu, worst_share) = worst.unwrap_or_default();
    let text = format!(
        "{share:.1} % of all CPU time was spent idle, waiting for disks; CPU {cpu}: \
         {worst_share:.1} %."
    );
    if share < IOWAIT_ALL && worst_share < IOWAIT_ONE {
        return all_ok(text);
    }
    Ok(vec![found(Detail {
        subject: None,
        weight: 80,
        seen: text,
        numbers: vec![
            crossed("I/O wait of all CPUs", share, "%", IOWAIT_ALL, "/proc/stat"),
            crossed(format!("I/O wait of CPU {cpu}"), worst_share, "%", IOWAIT_ONE, "/proc/stat"),
        ],
        why: "A request that waits for a disk is late however fast its packets travel: \
                  check the disks before the network.",
        step: look("pidstat -d 5 3"),
        iface: None,
    })])
}

/// Tasks that waited for disks (PSI).
pub(super) fn io_pressure(host: &HostSnapshot, _: &[String]) -> Answers {
    let path = "proc/pressure/io";
    let share = some_share(host, path)?;
    let text = format!("Some task waited for a disk in {share:.1} % of the time.");
    if share < IO_SOME {
        return all_ok(text);
    }
    Ok(vec![found(Detail {
        subject: None,
        weight: 72,
        seen: text,
        numbers: vec![crossed("time with tasks waiting", share, "%", IO_SOME, format!("/{path}"))],
        why: "Each of these waits is added to the response time of whoever asked.",
        step: look("pidstat -d 5 3"),
        iface: None,
    })])
}

/// Tasks that waited for a CPU (PSI).
pub(super) fn cpu_pressure(host: &HostSnapshot, _: &[String]) -> Answers {
    let path = "proc/pressure/cpu";
    let share = some_share(host, path)?;
    let text = format!("Some runnable task waited for a CPU in {share:.1} % of the time.");
    if share < CPU_SOME {
        return all_ok(text);
    }
    Ok(vec![found(Detail {
        subject: None,
        weight: 46,
        seen: text,
        numbers: vec![crossed("time with tasks waiting", share, "%", CPU_SOME, format!("/{path}"))],
        why: "A server thread that waits for a CPU answers late, and so does ksoftirqd, \
                  which processes packets when softirqs come too fast.",
        step: look("pidstat -u -w 5 3"),
        iface: None,
    })])
}

fn some_share(host: &HostSnapshot, path: &str) -> Result<f64, Unknown> {
    let pressure = host.change(path, Pressure::parse)?;
    let us = pressure.second.some_us.saturating_sub(pressure.first.some_us);
    Ok((us as f64 / host.seconds() / 1e4).min(100.0))
}
