//! What differs between two recordings besides their numbers.

use std::collections::BTreeMap;

use latency_common::stage::Stage;

use crate::{
    model::{
        cost::DisabledStage,
        distribution::Distribution,
        method::Method,
        note::{CompareSide, Note, StageEnd},
        run::Run,
        settings::HostSettings,
    },
    recording::loaded::LoadedRecording,
};

/// Number of settings that a note names; the others are only counted.
const NAMED: usize = 8;

/// Notes on how the recordings differ.
pub(super) fn notes(before: &LoadedRecording, after: &LoadedRecording) -> Vec<Note> {
    let mut notes = Vec::new();
    let sides = [(CompareSide::Before, before), (CompareSide::After, after)];
    if let (Some(a), Some(b)) = (&before.totals.run, &after.totals.run) {
        runs(a, b, &mut notes);
        methods(a, b, &mut notes);
        for (side, recording) in sides {
            if let Some(end) = &recording.totals.end {
                notes.extend(disabled(side, &end.self_cost.kernel.disabled));
            }
        }
        notes.extend(steal(stolen(before, a.cpus), stolen(after, b.cpus)));
        if let (Some(a), Some(b)) = (&before.totals.settings, &after.totals.settings) {
            notes.extend(settings(a, b));
        }
    } else {
        notes.push(Note::ForeignLogs);
        notes.extend(units(before, after));
    }
    for (side, recording) in sides {
        if recording.totals.merge.as_ref().is_some_and(|merge| merge.recordings > 1) {
            notes.push(Note::Merged { side });
        }
    }
    let [a, b] = [before, after].map(|recording| recording.parts.keys());
    for (side, series) in
        [(CompareSide::Before, a.difference(b)), (CompareSide::After, b.difference(a))]
    {
        let series = series.count() as u64;
        if series > 0 {
            notes.push(Note::SeriesOnOneSide { side, series });
        }
    }
    notes
}

/// Whether the values of two logs are typically in units of which one is a thousand, a million or a
/// billion of the other.
fn units(before: &LoadedRecording, after: &LoadedRecording) -> Option<Note> {
    let typical = |recording: &LoadedRecording| {
        let mut sum = Distribution::default();
        recording.totals.totals.series.values().for_each(|total| sum.add(&total.distribution));
        sum.quantile(&sum.histogram(), 0.5) as f64
    };
    let (before, after) = (typical(before), typical(after));
    let factors = [1e3, 1e6, 1e9].into_iter().flat_map(|unit| [unit, 1.0 / unit]);
    let is_near = |factor: &f64| ((before / after) / factor).ln().abs() < 0.05;
    factors.into_iter().find(is_near).map(|factor| Note::UnitsDiffer { factor })
}

/// Shares of the CPUs that differ by more than this factor are noted, as loads are.
const STEAL: f64 = 1.2;

/// Smaller shares of the CPUs do not matter.
const LITTLE_STEAL: f64 = 0.001;

/// The share of all CPUs that the hypervisor took; `None`: not known.
fn stolen(recording: &LoadedRecording, cpus: u32) -> Option<f64> {
    let totals = &recording.totals.totals;
    let taken: u64 = totals.steal()?.iter().map(|cpu| cpu.steal_ns).sum();
    let time = totals.length.as_nanos() as f64 * f64::from(cpus);
    (time > 0.0).then(|| taken as f64 / time)
}

fn steal(before: Option<f64>, after: Option<f64>) -> Option<Note> {
    let (before, after) = (before?, after?);
    let differ = before.max(after) > STEAL * before.min(after);
    (differ && before.max(after) >= LITTLE_STEAL).then_some(Note::StealDiffers { before, after })
}

fn runs(before: &Run, after: &Run, notes: &mut Vec<Note>) {
    if before.host != after.host {
        let (before, after) = (before.host.clone(), after.host.clone());
        notes.push(Note::HostsDiffer { before, after });
    }
    if before.kernel != after.kernel {
        let (before, after) = (before.kernel.clone(), after.kernel.clone());
        notes.push(Note::KernelsDiffer { before, after });
    }
    let (before_ns, after_ns) = (before.threshold_ns, after.threshold_ns);
    if before_ns != after_ns {
        notes.push(Note::ThresholdsDiffer { before_ns, after_ns });
    }
}

/// Settings that differ: usually the change under test.
fn settings(before: &HostSettings, after: &HostSettings) -> Option<Note> {
    let mut differences = before.differences(after);
    let more = differences.len().saturating_sub(NAMED) as u64;
    differences.truncate(NAMED);
    (!differences.is_empty()).then_some(Note::SettingsDiffer { differences, more })
}

/// Stages that were disabled during a recording: their rates lack all later events.
fn disabled(side: CompareSide, disabled: &[DisabledStage]) -> Option<Note> {
    let end = |stage: &DisabledStage| StageEnd { stage: stage.stage, after_s: stage.after_s };
    let stages: Vec<StageEnd> = disabled.iter().map(end).collect();
    (!stages.is_empty()).then_some(Note::StagesDisabled { side, stages })
}

fn methods(before: &Run, after: &Run, notes: &mut Vec<Note>) {
    let of = |run: &Run| -> BTreeMap<Stage, Method> {
        run.probes.iter().filter_map(|probe| Some((probe.stage, probe.method?))).collect()
    };
    let (a, b) = (of(before), of(after));
    for (&stage, &method) in &a {
        match b.get(&stage) {
            Some(&other) if other != method => {
                notes.push(Note::MethodsDiffer { stage, before: method, after: other });
            }
            Some(_) => {}
            None => notes.push(Note::StageTimedOnOneSide { stage, side: CompareSide::Before }),
        }
    }
    for &stage in b.keys().filter(|stage| !a.contains_key(*stage)) {
        notes.push(Note::StageTimedOnOneSide { stage, side: CompareSide::After });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disabled_stages_are_noted() {
        assert_eq!(disabled(CompareSide::Before, &[]), None);
        let irq = DisabledStage { stage: Stage::Irq, after_s: 2.4, share: 0.03, limit: 0.01 };
        let note = disabled(CompareSide::After, &[irq]).unwrap();
        assert_eq!(
            note.to_string(),
            "stages disabled in the recording after (--max-overhead): irq after 2.4 s"
        );
    }

    #[test]
    fn steal_that_differs_is_noted() {
        for (before, after) in
            [(None, Some(0.5)), (Some(0.0), Some(0.0009)), (Some(0.3), Some(0.3))]
        {
            assert_eq!(steal(before, after), None);
        }
        let note = steal(Some(0.0), Some(0.023)).unwrap();
        assert_eq!(note.code(), "steal-differs");
        assert!(note.to_string().contains("took 0.00 % of the CPUs before, 2.30 % after"));
        assert!(steal(Some(0.05), Some(0.03)).is_some());
    }

    fn set(values: &[(&str, &str)]) -> HostSettings {
        let sysctls = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        HostSettings { sysctls: sysctls.collect(), ..HostSettings::default() }
    }

    #[test]
    fn settings_that_differ_are_noted_and_no_others() {
        let before = set(&[("net.core.dev_weight", "64"), ("net.ipv4.tcp_rmem", "4096 1 2")]);
        let after = set(&[("net.core.dev_weight", "64"), ("net.core.busy_poll", "50")]);
        assert_eq!(settings(&before, &before), None);
        assert_eq!(
            settings(&before, &after).unwrap().to_string(),
            "different settings: net.core.busy_poll is absent before, 50 after; \
             net.ipv4.tcp_rmem is 4096 1 2 before, absent after"
        );
    }

    #[test]
    fn many_differences_are_counted() {
        let names: Vec<String> = (0..NAMED + 3).map(|n| format!("s{n}")).collect();
        let values: Vec<_> = names.iter().map(|name| (&**name, "1")).collect();
        let text = settings(&set(&values), &set(&[])).unwrap().to_string();
        assert!(text.ends_with("; and 3 more"), "{text}");
    }
}
