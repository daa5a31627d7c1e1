//! What the page of an experiment shows besides its comparison: the change, the windows in order,
//! and the guards.

use serde::Serialize;

use super::{Figure, windows};
use crate::{
    model::experiment::{Changed, Conclusion, Experiment},
    views::{
        experiment,
        format::{count, duration},
    },
};

/// An experiment as the template takes it.
#[derive(Serialize)]
pub(super) struct HtmlExperiment {
    /// Knob, value before, value tried.
    changed: Vec<Vec<String>>,
    /// The final state of the setting.
    setting: &'static str,
    /// What the windows show, in sentences.
    lines: Vec<String>,
    /// The windows in time.
    figure: Option<Figure>,
    windows: Vec<Vec<String>>,
    guards: Vec<Vec<String>>,
}

/// Whether the conclusion is bad news.
pub(super) fn is_alarming(found: &Experiment) -> bool {
    matches!(
        found.conclusion,
        Conclusion::Worse
            | Conclusion::ImprovedAtACost
            | Conclusion::EndedEarly
            | Conclusion::Interrupted
    )
}

/// The value that was tried, and the requested value if it differs.
fn tried(changed: &Changed) -> String {
    let Changed { requested, effective, .. } = changed;
    match requested == effective {
        true => effective.clone(),
        false => format!("asked for {requested}, the driver made it {effective}"),
    }
}

pub(super) fn show(found: &Experiment) -> HtmlExperiment {
    let changed = found.changed.iter();
    let windows = found.windows.iter().enumerate().map(|(at, window)| {
        vec![
            format!("{} {}", at + 1, experiment::kind(window)),
            count(window.events),
            count(window.stalls),
            duration(window.max_ns),
            format!("{:.0}", window.rates.packets),
            format!("{:.2}", window.rates.bytes / 1e6),
            format!("{:.1}", window.rates.drops),
            format!("{:.1}", window.rates.retransmits),
        ]
    });
    let guards = found.guards.iter().map(|guard| {
        let verdict = if guard.worse { "worse" } else { "no worse" };
        let [before, after] = [guard.before, guard.after].map(|rate| format!("{rate:.1}"));
        let p = guard.p.map_or("-".to_owned(), |p| format!("{p:.3}"));
        vec![guard.name.to_owned(), before, after, p, verdict.to_owned()]
    });
    let stage = found.comparison.decision.as_ref().map_or("stage=net_rx", |d| &d.name);
    let stage = stage.strip_prefix("stage=").unwrap_or(stage);
    HtmlExperiment {
        changed: changed
            .map(|changed| vec![changed.knob.clone(), changed.old.clone(), tried(changed)])
            .collect(),
        setting: experiment::setting(found.setting),
        lines: experiment::neighbours(found).into_iter().chain(experiment::power(found)).collect(),
        figure: windows::figure(&found.windows, stage),
        windows: windows.collect(),
        guards: guards.collect(),
    }
}
