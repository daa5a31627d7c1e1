//! Power saving that costs latency: frequency governors and deep idle states.

use std::collections::BTreeMap;

use crate::{
    model::{
        finding::Detail,
        remedy::{Change, Remedy, Step, knob::Knob, value::Value},
    },
    triage::{
        rule_answer::{Answers, all_ok, crossed, found, plain},
        snapshot::{HostSnapshot, Unknown},
    },
};

/// Drivers whose governor `powersave` leaves the frequency to the hardware.
const HARDWARE_CHOOSES: [&str; 2] = ["intel_pstate", "amd-pstate-epp"];
/// The most idle states that the kernel has (`CPUIDLE_STATE_MAX`).
const STATES: u32 = 10;
/// Time to wake from an idle state, us.
const WAKE_US: i64 = 100;

const CPUS: &str = "sys/devices/system/cpu";

/// Governors that react late to load.
pub(super) fn governor(host: &HostSnapshot, _: &[String]) -> Answers {
    let mut slow: BTreeMap<String, usize> = BTreeMap::new();
    let mut changes = Vec::new();
    let mut seen = 0;
    let mut fine = BTreeMap::<&str, usize>::new();
    for (cpu, name) in cpu_directories(host) {
        let file = |file: &str| host.setting(&format!("{CPUS}/{name}/cpufreq/{file}"));
        let Ok(governor) = file("scaling_governor") else { continue };
        seen += 1;
        let hardware =
            file("scaling_driver").is_ok_and(|driver| HARDWARE_CHOOSES.contains(&driver));
        let preference = file("energy_performance_preference").unwrap_or_default();
        let (what, knob, now) = match (governor, hardware) {
            ("powersave", true) if saves_power(preference) => {
                (format!("preference {preference}"), Knob::EnergyPreference { cpu }, preference)
            }
            ("conservative" | "ondemand", _) | ("powersave", false) => {
                (format!("governor {governor}"), Knob::Governor { cpu }, governor)
            }
            _ => {
                *fine.entry(governor).or_default() += 1;
                continue;
            }
        };
        *slow.entry(what).or_default() += 1;
        let (Some(now), Some(advised)) = (Value::word(now), Value::word("performance")) else {
            return Err(Unknown(format!("/{CPUS}/{name}/cpufreq: expected a word, found {now:?}")));
        };
        changes.push(Change::new(knob, now, advised));
    }
    if seen == 0 {
        return Err(Unknown(format!(
            "/{CPUS}/*/cpufreq is absent: firmware or the hypervisor sets the frequency"
        )));
    }
    let Some((what, cpus)) = slow.iter().max_by_key(|(_, cpus)| **cpus) else {
        let names: Vec<&str> = fine.into_keys().collect();
        return all_ok(format!("governor {} on {seen} CPUs", names.join(", ")));
    };
    let cpus = *cpus;
    Ok(vec![found(Detail {
        subject: None,
        weight: 34,
        seen: format!("{cpus} of {seen} CPUs have the {what}."),
        numbers: vec![crossed(
            format!("CPUs with the {what}"),
            cpus as f64,
            "",
            1.0,
            format!("/{CPUS}/*/cpufreq"),
        )],
        why: "After a quiet moment packets are processed at a low frequency until the \
                  governor reacts, which takes milliseconds.",
        step: Step::Change(Remedy { changes, namespace: None }),
        iface: None,
    })])
}

/// Whether the hardware is told to prefer saving power. The preference is a name, or a number from
/// 0 to 255: 192 is `balance_power`.
///
/// `HWP_EPP_BALANCE_POWERSAVE` in
/// <https://elixir.bootlin.com/linux/v6.12/source/arch/x86/include/asm/msr-index.h>
fn saves_power(preference: &str) -> bool {
    preference.parse::<u8>().map_or(preference.ends_with("power"), |number| number >= 192)
}

/// Disables, on each CPU, the states that take long to wake from and are not disabled already.
fn slow_states(host: &HostSnapshot) -> Result<Vec<Change>, Unknown> {
    let mut changes = Vec::new();
    // State by state, so that the CPUs of a state share a command.
    for state in 0..STATES {
        for (cpu, _) in cpu_directories(host) {
            let knob = Knob::IdleState { cpu, state };
            let directory = format!("{CPUS}/cpu{cpu}/cpuidle/state{state}");
            let number = |file: &str| host.number(&format!("{directory}/{file}"));
            // A CPU that is offline has no states.
            let (Ok(latency), Ok(disabled)) = (number("latency"), number("disable")) else {
                continue;
            };
            if latency >= WAKE_US && disabled == 0 {
                changes.push(Change::new(knob, Value::number(0), Value::number(1)));
            }
        }
    }
    match changes.is_empty() {
        true => Err(Unknown(format!("/{CPUS}/*/cpuidle shows no state to disable"))),
        false => Ok(changes),
    }
}

fn is_on_cpu_0(knob: &Knob) -> bool {
    matches!(knob, Knob::IdleState { cpu: 0, .. })
}

/// The CPUs of the host and the names of their directories, in numerical order.
fn cpu_directories(host: &HostSnapshot) -> Vec<(u32, &str)> {
    let names = host.second.children(CPUS).into_iter();
    let mut cpus: Vec<(u32, &str)> =
        names.filter_map(|name| Some((name.strip_prefix("cpu")?.parse().ok()?, name))).collect();
    cpus.sort_unstable();
    cpus
}

/// Idle states that take long to wake from, read from CPU 0.
pub(super) fn idle_states(host: &HostSnapshot, _: &[String]) -> Answers {
    let directory = format!("{CPUS}/cpu0/cpuidle");
    let states = host.second.children(&directory);
    if states.is_empty() {
        return Err(Unknown(format!("/{directory} is absent")));
    }
    let mut deepest: Option<(i64, String, u64)> = None;
    for state in &states {
        let file = |name: &str| format!("{directory}/{state}/{name}");
        let latency = host.number(&file("latency"))?;
        if latency < WAKE_US || host.number(&file("disable"))? != 0 {
            continue;
        }
        let name = host.setting(&file("name"))?.to_owned();
        let path = file("time");
        let time = host.change(&path, |place, text| {
            use anyhow::Context as _;
            text.trim().parse::<u64>().with_context(|| format!("{}:1", place.display()))
        })?;
        let slept = time.second.saturating_sub(time.first);
        if slept > 0 && deepest.as_ref().is_none_or(|(longest, ..)| latency > *longest) {
            deepest = Some((latency, name, slept));
        }
    }
    let Some((latency, name, slept)) = deepest else {
        // The time in a state is read from CPU 0 alone.
        let others = slow_states(host).unwrap_or_default();
        if !others.is_empty() && !others.iter().any(|change| is_on_cpu_0(&change.knob)) {
            return Err(Unknown(format!(
                "CPU 0 may not enter the states that take {WAKE_US} us to wake from, other CPUs \
                 may; only the time of CPU 0 is read"
            )));
        }
        return all_ok(format!("CPU 0 was in no idle state that takes {WAKE_US} us to wake from"));
    };
    let share = slept as f64 / host.seconds() / 1e4;
    Ok(vec![found(Detail {
        subject: None,
        weight: 30,
        seen: format!(
            "CPU 0 spent {share:.1} % of the time in idle state {name}, which takes \
                 {latency} us to wake from."
        ),
        numbers: vec![
            crossed("time to wake", latency as f64, "us", WAKE_US as f64, format!("/{directory}")),
            plain(format!("time in {name}"), share, "%", format!("/{directory}")),
        ],
        why: "The first packet after a pause waits until its CPU is awake.",
        step: Step::Change(Remedy { changes: slow_states(host)?, namespace: None }),
        iface: None,
    })])
}
