//! An experiment for people: its progress, then the conclusion with its numbers.

use std::{io, time::Duration};

use super::{
    Style, comparison, duration_classes,
    format::{count, duration},
    stall_time,
    text::{paragraph, printable},
};
use crate::model::experiment::{
    Changed, Conclusion, Experiment, ExperimentPlan, Guard, Neighbours, Role, Setting,
    WindowSummary,
};

/// Maximum number of culprits named.
const CULPRITS: usize = 4;

/// Writes a tunable: its form, its description, and its keys with their current values.
///
/// # Errors
///
/// What `out` fails with.
pub fn tunable(
    form: &str,
    description: &str,
    values: &[(String, String)],
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let mut text = String::new();
    paragraph(&mut text, form, 2, style, Style::bold);
    paragraph(&mut text, &format!("  {description}"), 2, style, Style::plain);
    for (key, value) in values {
        let line = format!("    {} = {}", printable(key), printable(value));
        paragraph(&mut text, &line, 6, style, Style::plain);
    }
    out.write_all(text.as_bytes())
}

/// What is put back beside the setting; nothing if there is nothing.
pub fn followers(knobs: &[String]) -> String {
    let mut text = String::new();
    if let Some((first, rest)) = knobs.split_first() {
        let more = match rest.len() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let line = format!("may move with it, and is put back too: {first}{more}");
        paragraph(
            &mut text,
            &line,
            2,
            Style { colour: false, width: Style::MAX_WIDTH },
            Style::plain,
        );
    }
    text
}

/// Writes an experiment.
///
/// # Errors
///
/// What `out` fails with.
pub fn experiment(
    experiment: &Experiment,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let mut text = String::new();
    let paint = match experiment.conclusion {
        Conclusion::Worse
        | Conclusion::ImprovedAtACost
        | Conclusion::EndedEarly
        | Conclusion::Interrupted => Style::alarm,
        _ => Style::bold,
    };
    paragraph(&mut text, &sentence(experiment), 2, style, paint);
    for line in neighbours(experiment).into_iter().chain(power(experiment)) {
        paragraph(&mut text, &line, 2, style, Style::plain);
    }
    for changed in &experiment.changed {
        for line in self::changed(changed) {
            paragraph(&mut text, &line, 2, style, Style::plain);
        }
    }
    paragraph(&mut text, setting(experiment.setting), 2, style, Style::plain);
    if !experiment.culprits.is_empty() {
        let time = experiment.stall_time.unwrap_or_default();
        let named = stall_time::text(&experiment.culprits, &time, CULPRITS);
        let line = format!("Culprits before: {named}.");
        paragraph(&mut text, &line, 2, style, Style::plain);
    }
    text.push_str("\nwindow           events stalls     max packets/s    MB/s drops/s retrans/s\n");
    for (at, window) in experiment.windows.iter().enumerate() {
        let kind = kind(window);
        text.push_str(&format!(
            "{:>2} {kind:<10} {:>9} {:>6} {:>7} {:>9.0} {:>7.2} {:>7.1} {:>9.1}\n",
            at + 1,
            count(window.events),
            count(window.stalls),
            duration(window.max_ns),
            window.rates.packets,
            window.rates.bytes / 1e6,
            window.rates.drops,
            window.rates.retransmits,
        ));
    }
    text.push('\n');
    duration_classes::table(&mut text, &experiment.duration_classes, style);
    text.push('\n');
    for guard in &experiment.guards {
        let paint = if guard.worse { Style::alarm } else { Style::plain };
        paragraph(&mut text, &self::guard(guard), 2, style, paint);
    }
    text.push('\n');
    out.write_all(text.as_bytes())?;
    comparison::details(&experiment.comparison, style, out)
}

/// What a window was for.
pub(super) fn kind(window: &WindowSummary) -> &'static str {
    match (window.lead_in, window.changed) {
        (true, _) => "lead-in",
        (_, true) => "changed",
        (_, false) => "as it was",
    }
}

/// The conclusion in a sentence.
pub fn sentence(experiment: &Experiment) -> String {
    let compared = comparison::sentence(&experiment.comparison);
    let suffered: Vec<&str> =
        experiment.guards.iter().filter(|guard| guard.worse).map(|guard| guard.name).collect();
    let sentence = match experiment.conclusion {
        Conclusion::ImprovedAtACost => format!("At a cost in {}: {compared}", suffered.join(", ")),
        Conclusion::Worse if !suffered.is_empty() => {
            format!("Worse in {}: {compared}", suffered.join(", "))
        }
        Conclusion::Interrupted => format!("Interrupted. So far: {compared}"),
        _ => compared,
    };
    match &experiment.aborted {
        Some(reason) => {
            let reason = printable(&reason.to_string());
            format!("A window with the change was ended early: {reason}. {sentence}")
        }
        None => sentence,
    }
}

/// What the windows show without statistics.
pub(super) fn neighbours(experiment: &Experiment) -> Option<String> {
    let Neighbours { fewer, more, of } = experiment.neighbours;
    let (number, word) = if more > fewer { (more, "more") } else { (fewer, "fewer") };
    (of > 0).then(|| {
        format!("{number} of {of} windows with the change had {word} stalls than either neighbour.")
    })
}

/// How much measuring would show a halving; why the experiment was given up.
pub(super) fn power(experiment: &Experiment) -> Option<String> {
    match &experiment.given_up {
        Some(why) => Some(format!("Ended before its last window: {why}.")),
        None => comparison::power(&experiment.comparison),
    }
}

/// The line before the first window.
pub fn announcement(pairs: u32, window: Duration, about: Duration, seed: u64) -> String {
    let minutes = Duration::from_secs(about.as_secs());
    format!(
        "{pairs} pairs of windows of {}, at most about {} (--seed {seed})\n",
        humantime::format_duration(window),
        humantime::format_duration(minutes)
    )
}

/// Writes the plan of an experiment.
///
/// # Errors
///
/// What `out` fails with.
pub fn plan(plan: &ExperimentPlan, style: Style, out: &mut dyn io::Write) -> io::Result<()> {
    let mut text = String::new();
    let stage = plan.stage.as_deref().unwrap_or_default();
    let stage = printable(stage.strip_prefix("stage=").unwrap_or(stage));
    let answer = match (&plan.stage, plan.windows_for_halving, plan.duration_s) {
        (None, ..) => {
            let stalls = "There was no stall in these windows: nothing can become rarer.";
            format!("{stalls} Choose a lower --threshold, longer windows or a busier time.")
        }
        (_, Some(windows), Some(seconds)) => {
            let time = Duration::from_secs(seconds as u64);
            format!(
                "{windows} windows, half of them with the change, show a halving of {stage}'s stalls \
                 in 8 of 10 tries: --rounds {}, about {}.",
                windows.div_ceil(2),
                humantime::format_duration(time)
            )
        }
        _ => format!("{stage}'s stalls vary too much to show a halving with such windows."),
    };
    paragraph(&mut text, &answer, 2, style, Style::bold);
    if plan.stage.is_some() {
        let line = format!(
            "{:.1} stalls a window of {stage} without any change; rates of windows vary by a factor \
             of {:.1} (one standard deviation).",
            plan.stalls_per_window,
            plan.variation.exp()
        );
        paragraph(&mut text, &line, 2, style, Style::plain);
    }
    out.write_all(text.as_bytes())
}

/// Sentences on what was changed.
pub fn changed(changed: &Changed) -> Vec<String> {
    let line = format!("{}: {:?}, tried {:?}.", changed.knob, changed.old, changed.effective);
    [printable(&line)].into_iter().chain(rounded(changed)).collect()
}

/// A sentence on a value that the driver changed; `None`: it is the requested value.
pub fn rounded(changed: &Changed) -> Option<String> {
    let Changed { knob, requested, effective, .. } = changed;
    (requested != effective).then(|| {
        let text = format!("{knob}: asked for {requested:?}, the driver made it {effective:?}.");
        printable(&text)
    })
}

/// The final state of the setting.
pub(super) fn setting(setting: Setting) -> &'static str {
    match setting {
        Setting::Original => "The original value is in place.",
        Setting::Kept => "The new value is in place.",
    }
}

fn guard(guard: &Guard) -> String {
    let verdict = if guard.worse { "worse" } else { "no worse" };
    let rate = |per_second: f64| match per_second {
        10_000.0.. => count(per_second as u64),
        _ => format!("{per_second:.1}"),
    };
    let (before, after) = (rate(guard.before), rate(guard.after));
    format!("{}: {before}/s before, {after}/s after: {verdict}.", guard.name)
}

/// The line at the start of a window.
pub fn window_starts(at: u32, of: u32, role: Role, length: Duration) -> String {
    let kind = match role {
        Role::LeadIn => "lead-in, as it was",
        Role::Unchanged => "A, as it was",
        Role::Changed => "B, with the change",
    };
    format!("window {at} of {of}: {kind}, {}\n", humantime::format_duration(length))
}

/// The line with the result of a window.
pub fn measured(window: &WindowSummary) -> String {
    format!(
        "  {} runs of net_rx_action, {} stalls, longest {}\n",
        count(window.events),
        count(window.stalls),
        duration(window.max_ns)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_changed_value_is_reported() {
        let mut change = Changed {
            knob: "ring:eth0/rx".into(),
            old: "256".into(),
            requested: "128".into(),
            effective: "128".into(),
        };
        assert_eq!(changed(&change), ["ring:eth0/rx: \"256\", tried \"128\"."]);
        change.requested = "100".into();
        let expected = "ring:eth0/rx: asked for \"100\", the driver made it \"128\".";
        assert_eq!(changed(&change)[1], expected);
    }
}
