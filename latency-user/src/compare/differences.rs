//! What differs between two recordings besides their numbers.

use std::collections::BTreeMap;

use super::Recorded;
use crate::model::{
    cost::Shed,
    run::Run,
    settings::{Difference, Settings},
};

/// Settings that a remark names; more of them are counted.
const NAMED: usize = 8;

/// Sentences on what makes the recordings different.
pub(super) fn remarks(before: &Recorded, after: &Recorded) -> Vec<String> {
    let mut remarks = Vec::new();
    if let (Some(a), Some(b)) = (&before.whole.run, &after.whole.run) {
        for (what, a, b) in [("hosts", &a.host, &b.host), ("kernels", &a.kernel, &b.kernel)] {
            if a != b {
                remarks.push(format!("different {what}: {a} before, {b} after"));
            }
        }
        if a.threshold_ns != b.threshold_ns {
            remarks.push(format!(
                "different thresholds: {} ns before, {} ns after; stalls are counted from the \
                 higher one on, to the precision of a bucket (0.8%)",
                a.threshold_ns, b.threshold_ns
            ));
        }
        methods(a, b, &mut remarks);
        for (side, recorded) in [("before", before), ("after", after)] {
            if let Some(end) = &recorded.whole.end {
                remarks.extend(given_up(side, &end.self_cost.kernel.shed));
            }
        }
        if let (Some(a), Some(b)) = (&before.whole.settings, &after.whole.settings) {
            remarks.extend(settings(a, b));
        }
    } else {
        remarks.push("logs of another program: values are taken as ns".into());
    }
    for (side, recorded) in [("before", before), ("after", after)] {
        if recorded.whole.merge.as_ref().is_some_and(|merge| merge.recordings > 1) {
            remarks.push(format!(
                "the recording {side} was merged, which keeps no intervals: chance cannot be told \
                 from change; compare the recordings that it was made of"
            ));
        }
    }
    let only = |a: &Recorded, b: &Recorded| {
        let there: std::collections::BTreeSet<&String> = b.blocks.tags().collect();
        a.blocks.tags().filter(|tag| !there.contains(tag)).count()
    };
    for (side, n) in [("before", only(before, after)), ("after", only(after, before))] {
        if n > 0 {
            remarks.push(format!("{n} series recorded only {side} are left out"));
        }
    }
    remarks
}

/// Which settings differ: as a rule, what was changed to see whether it helps.
fn settings(before: &Settings, after: &Settings) -> Option<String> {
    let differences = before.differences(after);
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".into());
    let told = |one: &Difference| {
        format!("{} is {} before, {} after", one.name, value(&one.before), value(&one.after))
    };
    let mut named: Vec<String> = differences.iter().take(NAMED).map(told).collect();
    if differences.len() > NAMED {
        named.push(format!("and {} more", differences.len() - NAMED));
    }
    (!named.is_empty()).then(|| format!("different settings: {}", named.join("; ")))
}

/// Stages that were given up in a recording, whose rates lack what came later.
fn given_up(side: &str, shed: &[Shed]) -> Option<String> {
    let stages: Vec<String> =
        shed.iter().map(|one| format!("{} after {:.1} s", one.stage.name(), one.after_s)).collect();
    (!stages.is_empty())
        .then(|| format!("the recording {side} gave up {} (--max-overhead)", stages.join(", ")))
}

fn methods(before: &Run, after: &Run, remarks: &mut Vec<String>) {
    let of = |run: &Run| -> BTreeMap<&'static str, &'static str> {
        let used = run.probes.iter().filter_map(|p| Some((p.stage.name(), p.method?.name())));
        used.collect()
    };
    let (a, b) = (of(before), of(after));
    for (stage, method) in &a {
        match b.get(stage) {
            Some(other) if other != method => {
                remarks.push(format!("{stage} probed differently: {method} before, {other} after"))
            }
            Some(_) => {}
            None => remarks.push(format!("{stage} was timed only before")),
        }
    }
    for stage in b.keys().filter(|stage| !a.contains_key(*stage)) {
        remarks.push(format!("{stage} was timed only after"));
    }
}

#[cfg(test)]
mod tests {
    use latency_common::stage::Stage;

    use super::*;

    #[test]
    fn what_was_given_up_is_said() {
        assert_eq!(given_up("before", &[]), None);
        let shed = [Shed { stage: Stage::Irq, after_s: 2.4, share: 0.03, allowed: 0.01 }];
        let said = given_up("after", &shed).unwrap();
        assert_eq!(said, "the recording after gave up irq after 2.4 s (--max-overhead)");
    }

    fn set(values: &[(&str, &str)]) -> Settings {
        let sysctls = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings { sysctls: sysctls.collect(), ..Settings::default() }
    }

    #[test]
    fn what_was_changed_is_said_and_what_was_not_is_not() {
        let before = set(&[("net.core.dev_weight", "64"), ("net.ipv4.tcp_rmem", "4096 1 2")]);
        let after = set(&[("net.core.dev_weight", "64"), ("net.core.busy_poll", "50")]);
        assert_eq!(settings(&before, &before), None);
        assert_eq!(
            settings(&before, &after).unwrap(),
            "different settings: net.core.busy_poll is absent before, 50 after; \
             net.ipv4.tcp_rmem is 4096 1 2 before, absent after"
        );
    }

    #[test]
    fn many_differences_are_counted() {
        let names: Vec<String> = (0..NAMED + 3).map(|n| format!("s{n}")).collect();
        let values: Vec<_> = names.iter().map(|name| (&**name, "1")).collect();
        let said = settings(&set(&values), &set(&[])).unwrap();
        assert!(said.ends_with("; and 3 more"), "{said}");
    }
}
