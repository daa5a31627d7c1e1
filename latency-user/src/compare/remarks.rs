//! What differs between two recordings besides their numbers.

use std::collections::BTreeMap;

use super::Recorded;
use crate::model::run::Run;

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
