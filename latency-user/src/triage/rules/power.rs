//! Power saving that costs latency: frequency governors and deep idle states.

use crate::model::finding::Detail;
use std::collections::BTreeMap;

use crate::triage::{
    rule_answer::{Answers, all_ok, crossed, found, plain, quoted, trace},
    snapshot::{HostSnapshot, Unknown},
};

/// Drivers whose governor `powersave` leaves the frequency to the hardware.
const HARDWARE_CHOOSES: [&str; 2] = ["intel_pstate", "amd-pstate-epp"];
/// Time to wake from an idle state, us.
const WAKE_US: i64 = 100;

const CPUS: &str = "sys/devices/system/cpu";

/// Governors that react late to load.
pub(super) fn governor(host: &HostSnapshot, _: &[String]) -> Answers {
    let mut slow: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut seen = 0;
    let mut fine = BTreeMap::<&str, usize>::new();
    for cpu in host.second.children(CPUS) {
        let file = |name: &str| host.setting(&format!("{CPUS}/{cpu}/cpufreq/{name}"));
        let Ok(governor) = file("scaling_governor") else { continue };
        seen += 1;
        let hardware =
            file("scaling_driver").is_ok_and(|driver| HARDWARE_CHOOSES.contains(&driver));
        let preference = file("energy_performance_preference").unwrap_or_default();
        match (governor, hardware) {
            ("powersave", true) if preference.ends_with("power") => {
                slow.entry(format!("preference {preference}")).or_default().push(cpu);
            }
            ("conservative" | "ondemand", _) | ("powersave", false) => {
                slow.entry(format!("governor {governor}")).or_default().push(cpu);
            }
            _ => *fine.entry(governor).or_default() += 1,
        }
    }
    if seen == 0 {
        return Err(Unknown(format!(
            "/{CPUS}/*/cpufreq is absent: firmware or the hypervisor sets the frequency"
        )));
    }
    let Some((what, cpus)) = slow.iter().max_by_key(|(_, cpus)| cpus.len()) else {
        let names: Vec<&str> = fine.into_keys().collect();
        return all_ok(format!("governor {} on {seen} CPUs", names.join(", ")));
    };
    let (next, undo) = match what.split_once(' ') {
        Some(("preference", preference)) => {
            let set =
                |to| format!("echo {to} | tee /{CPUS}/cpu*/cpufreq/energy_performance_preference");
            (set("performance"), set(preference))
        }
        _ => {
            let old = what.trim_start_matches("governor ");
            let set = |to: &str| format!("cpupower frequency-set -g {}", quoted(to));
            (set("performance"), set(old))
        }
    };
    Ok(vec![found(Detail {
        subject: None,
        weight: 34,
        seen: format!("{} of {seen} CPUs have the {what}.", cpus.len()),
        numbers: vec![crossed(
            format!("CPUs with the {what}"),
            cpus.len() as f64,
            "",
            1.0,
            format!("/{CPUS}/*/cpufreq"),
        )],
        why: "After a quiet moment packets are processed at a low frequency until the \
                  governor reacts, which takes milliseconds.",
        next,
        undo: Some(undo),
        confirm: trace(None),
    })])
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
        next: format!("cpupower idle-set --disable-by-latency {WAKE_US}"),
        undo: Some("cpupower idle-set --enable-all".into()),
        confirm: trace(None),
    })])
}
