//! What differs between the sides besides their numbers.

use std::collections::{BTreeMap, BTreeSet};

use latency_common::stage::Stage;

use crate::{
    model::{
        cost::DisabledStage,
        distribution::Distribution,
        method::Method,
        note::{CompareSide, Note, StageEnd},
        run::Run,
        series::SeriesKey,
        settings::HostSettings,
    },
    recording::loaded::LoadedRecording,
};

/// Number of settings that a note names; the others are only counted.
const NAMED: usize = 8;

/// Notes on how the sides differ.
pub(super) fn notes(sides: [&[&LoadedRecording]; 2]) -> Vec<Note> {
    let mut notes = Vec::new();
    let [before, after] = sides;
    let named = || [CompareSide::Before, CompareSide::After].into_iter().zip(sides);
    let [a, b] = sides.map(|side| -> Vec<&Run> {
        side.iter().filter_map(|recording| recording.totals.run.as_ref()).collect()
    });
    if a.len() == before.len() && b.len() == after.len() && !a.is_empty() && !b.is_empty() {
        runs(&a, &b, &mut notes);
        methods(a[0], b[0], &mut notes);
        for (side, recordings) in named() {
            for recording in recordings {
                if let Some(end) = &recording.totals.end {
                    notes.extend(disabled(side, &end.self_cost.kernel.disabled));
                }
            }
        }
        notes.extend(steal(stolen(before), stolen(after)));
        if let (Some(a), Some(b)) = (&before[0].totals.settings, &after[0].totals.settings) {
            notes.extend(settings(a, b));
        }
    } else if !before.is_empty() && !after.is_empty() {
        notes.push(Note::ForeignLogs);
        notes.extend(units(before, after));
    }
    for (side, recordings) in named() {
        let is_merged = |recording: &&LoadedRecording| {
            recording.totals.merge.as_ref().is_some_and(|merge| merge.recordings > 1)
                && recording.totals.totals.intervals < 2
        };
        if recordings.iter().any(is_merged) {
            notes.push(Note::Merged { side });
        }
    }
    let [a, b] = sides.map(|side| -> BTreeSet<&SeriesKey> {
        side.iter().flat_map(|recording| recording.parts.keys()).collect()
    });
    for (side, series) in
        [(CompareSide::Before, a.difference(&b)), (CompareSide::After, b.difference(&a))]
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
fn units(before: &[&LoadedRecording], after: &[&LoadedRecording]) -> Option<Note> {
    let typical = |side: &[&LoadedRecording]| {
        let mut sum = Distribution::default();
        let series = side.iter().flat_map(|recording| recording.totals.totals.series.values());
        series.for_each(|total| sum.add(&total.distribution));
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
fn stolen(side: &[&LoadedRecording]) -> Option<f64> {
    let (mut taken, mut time) = (0, 0.0);
    for recording in side {
        let totals = &recording.totals.totals;
        taken += totals.steal()?.iter().map(|cpu| cpu.steal_ns).sum::<u64>();
        let cpus = recording.totals.run.as_ref()?.cpus;
        time += totals.length.as_nanos() as f64 * f64::from(cpus);
    }
    (time > 0.0).then(|| taken as f64 / time)
}

fn steal(before: Option<f64>, after: Option<f64>) -> Option<Note> {
    let (before, after) = (before?, after?);
    let differ = before.max(after) > STEAL * before.min(after);
    (differ && before.max(after) >= LITTLE_STEAL).then_some(Note::StealDiffers { before, after })
}

fn runs(before: &[&Run], after: &[&Run], notes: &mut Vec<Note>) {
    let distinct = |side: &[&Run], of: fn(&Run) -> &str| -> String {
        let all: BTreeSet<&str> = side.iter().map(|run| of(run)).collect();
        all.into_iter().collect::<Vec<_>>().join(", ")
    };
    let differ = |of: fn(&Run) -> &str| {
        let (before, after) = (distinct(before, of), distinct(after, of));
        (before != after).then_some((before, after))
    };
    if let Some((before, after)) = differ(|run| &run.host) {
        notes.push(Note::HostsDiffer { before, after });
    }
    if let Some((before, after)) = differ(|run| &run.kernel) {
        notes.push(Note::KernelsDiffer { before, after });
    }
    let thresholds = || before.iter().chain(after).map(|run| run.threshold_ns);
    let (least, most) = (thresholds().min().unwrap_or(0), thresholds().max().unwrap_or(0));
    if least != most {
        let of = |side: &[&Run]| side.iter().map(|run| run.threshold_ns).max().unwrap_or(0);
        let (before_ns, after_ns) = match (of(before), of(after)) {
            (a, b) if a == b => (least, most),
            differ => differ,
        };
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
