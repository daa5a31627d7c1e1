//! Where each CPU spends its time, as `mpstat -P ALL` shows it, and ksoftirqd.

use crate::{
    host::cpu::stat::{Stat, Ticks},
    model::finding::Detail,
    triage::{
        placement,
        rule_answer::{Answers, all_ok, crossed, found, look, plain},
        snapshot::{HostSnapshot, Samples, Unknown},
    },
};

/// Softirq and hard-IRQ time of one CPU, percent, that leaves no time for anything else.
const SATURATED: f64 = 80.0;
/// The same, when the other CPUs do little of this work: the load is badly distributed.
const LOPSIDED: f64 = 40.0;
/// Mean of the other CPUs, percent, up to which one CPU carries the load alone.
const OTHERS: f64 = 10.0;
/// Idle time, percent, below which a CPU is saturated.
const IDLE: f64 = 5.0;
/// Stolen time of one CPU, percent.
const STEAL: f64 = 5.0;
/// Time of a ksoftirqd thread, percent of a CPU.
const KSOFTIRQD: f64 = 5.0;
/// Clock ticks in a second as `/proc` counts them (`USER_HZ`), on every architecture with BPF.
const TICKS_PER_SECOND: f64 = 100.0;

/// Ticks between the samples of each CPU that is in both.
fn each_cpu(stat: &Samples<Stat>) -> impl Iterator<Item = (u32, Ticks)> {
    stat.second.cpus.iter().filter_map(|(cpu, later)| {
        let (_, earlier) = stat.first.cpus.iter().find(|(number, _)| number == cpu)?;
        Some((*cpu, later.since(earlier)))
    })
}

/// The CPU with the largest share of `part`, and that share in percent.
pub(super) fn worst(stat: &Samples<Stat>, part: impl Fn(&Ticks) -> u64) -> Option<(u32, f64)> {
    each_cpu(stat)
        .map(|(cpu, ticks)| (cpu, ticks.percent(part(&ticks))))
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
}

fn ticked(host: &HostSnapshot) -> Result<&Samples<Stat>, Unknown> {
    let stat = host.stat()?;
    match each_cpu(stat).any(|(_, ticks)| ticks.total() > 0) {
        true => Ok(stat),
        false => Err(Unknown("no clock tick passed between the samples".into())),
    }
}

/// The time of a CPU, with mpstat's names.
fn describe(ticks: &Ticks) -> String {
    let share = |part| ticks.percent(part);
    format!(
        "user {:.1}, system {:.1}, softirq {:.1}, hard IRQ {:.1}, steal {:.1}, I/O wait {:.1}, \
         idle {:.1} %",
        share(ticks.user),
        share(ticks.system),
        share(ticks.softirq),
        share(ticks.irq),
        share(ticks.steal),
        share(ticks.iowait),
        share(ticks.idle)
    )
}

/// A CPU saturated by softirqs.
pub(super) fn softirq(host: &HostSnapshot, _: &[String]) -> Answers {
    let stat = ticked(host)?;
    let part = |ticks: &Ticks| ticks.softirq.saturating_add(ticks.irq);
    let Some((cpu, share)) = worst(stat, part) else {
        return Err(Unknown("no CPU was online in both samples".into()));
    };
    let others: Vec<f64> = each_cpu(stat)
        .filter(|(number, _)| *number != cpu)
        .map(|(_, ticks)| ticks.percent(part(&ticks)))
        .collect();
    let mean = others.iter().sum::<f64>() / others.len().max(1) as f64;
    let alone = !others.is_empty() && mean <= OTHERS;
    let ticks = each_cpu(stat).find(|(number, _)| *number == cpu).map(|(_, ticks)| ticks);
    let text = format!(
        "CPU {cpu} spends the most time in interrupts: {}.",
        describe(&ticks.unwrap_or_default())
    );
    let (weight, threshold) = match share {
        _ if share >= SATURATED => (90, SATURATED),
        _ if share >= LOPSIDED && alone => (70, LOPSIDED),
        _ => return all_ok(text),
    };
    Ok(vec![found(Detail {
        subject: Some(format!("CPU {cpu}")),
        weight,
        seen: format!("{text} The others spend {mean:.1} % in interrupts on average."),
        numbers: vec![
            crossed("softirq and hard IRQ time", share, "%", threshold, "/proc/stat"),
            plain("mean of the other CPUs", mean, "%", "/proc/stat"),
        ],
        why: "Packets of this CPU wait for each other, and tasks on it wait for all of them.",
        step: look(format!("mpstat -P {cpu} -I SCPU 5 1")),
        iface: None,
    })])
}

/// CPUs without idle time.
pub(super) fn saturated(host: &HostSnapshot, _: &[String]) -> Answers {
    let stat = ticked(host)?;
    let mut full = Vec::new();
    // CPUs that are set apart are to be busy with what they are set apart for.
    let usable = placement::usable(host).ok();
    let counts = |cpu: u32| usable.as_ref().is_none_or(|usable| usable.contains(&cpu));
    for (cpu, ticks) in each_cpu(stat).filter(|(cpu, ticks)| ticks.total() > 0 && counts(*cpu)) {
        let idle = ticks.percent(ticks.idle.saturating_add(ticks.iowait));
        if idle < IDLE {
            full.push((cpu, idle, ticks));
        }
    }
    let Some((cpu, idle, ticks)) = full.first() else {
        return all_ok(format!("Every CPU had at least {IDLE} % of its time to spare."));
    };
    Ok(vec![found(Detail {
        subject: Some(format!("CPU {cpu}")),
        weight: 45,
        seen: format!(
            "{} of {} CPUs had less than {IDLE} % of their time to spare; CPU {cpu}: {}.",
            full.len(),
            each_cpu(stat).count(),
            describe(ticks)
        ),
        numbers: vec![crossed("idle time", *idle, "%", IDLE, "/proc/stat")],
        why: "Where softirqs run, tasks wait, and a busy CPU leaves ksoftirqd to compete \
                  with them for time.",
        step: look(format!("mpstat -P {cpu} 5 1; pidstat -u 5 1")),
        iface: None,
    })])
}

/// Time that the hypervisor took.
pub(super) fn steal(host: &HostSnapshot, _: &[String]) -> Answers {
    let stat = ticked(host)?;
    let (cpu, share) = worst(stat, |ticks| ticks.steal).unwrap_or_default();
    let text = format!("The hypervisor took {share:.1} % of CPU {cpu}'s time, the most of all.");
    if share < STEAL {
        return all_ok(text);
    }
    Ok(vec![found(Detail {
        subject: Some(format!("CPU {cpu}")),
        weight: 75,
        seen: text,
        numbers: vec![crossed("stolen time", share, "%", STEAL, "/proc/stat")],
        why: "While the hypervisor runs another guest, nothing here runs, softirqs included: \
                  each gap is a stall that no setting of this host can fix.",
        step: look("mpstat -P ALL 5 3"),
        iface: None,
    })])
}

/// The busiest ksoftirqd: CPU and percent of it.
pub(super) fn busiest_ksoftirqd(host: &HostSnapshot) -> Result<(u32, f64), Unknown> {
    let processes = host.processes()?;
    let earlier = &processes.first.ksoftirqd_ticks;
    let later = &processes.second.ksoftirqd_ticks;
    later
        .iter()
        .filter_map(|(cpu, ticks)| Some((*cpu, ticks.saturating_sub(*earlier.get(cpu)?))))
        .map(|(cpu, ticks)| (cpu, ticks as f64 / TICKS_PER_SECOND / host.seconds() * 100.0))
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .ok_or_else(|| Unknown("no ksoftirqd thread can be seen (a PID namespace?)".into()))
}

/// Softirqs that were handed to ksoftirqd.
pub(super) fn ksoftirqd(host: &HostSnapshot, _: &[String]) -> Answers {
    let (cpu, share) = busiest_ksoftirqd(host)?;
    let text = format!("ksoftirqd/{cpu} used {share:.1} % of its CPU, the most of all.");
    if share < KSOFTIRQD {
        return all_ok(text);
    }
    Ok(vec![found(Detail {
        subject: Some(format!("CPU {cpu}")),
        weight: 58,
        seen: text,
        numbers: vec![crossed("ksoftirqd", share, "%", KSOFTIRQD, "/proc/PID/stat")],
        why: "Softirqs come faster than they are done, so a thread of ordinary priority does \
                  them: packets then wait for the scheduler.",
        step: look("latency-user trace --stages rx_wait,net_rx,softirq --duration 30s"),
        iface: None,
    })])
}
