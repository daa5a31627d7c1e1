//! An experiment for people: its progress, then the conclusion with its numbers.

use std::{io, time::Duration};

use super::{
    Style, comparison, duration_classes,
    format::{count, duration},
    stall_time,
    text::{paragraph, printable},
};
use crate::model::experiment::{Changed, Conclusion, Experiment, Guard, Setting, WindowSummary};

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
        Conclusion::Worse | Conclusion::ImprovedAtACost => Style::alarm,
        _ => Style::bold,
    };
    paragraph(&mut text, &sentence(experiment), 2, style, paint);
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
        let kind = if window.changed { "changed" } else { "as it was" };
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
    comparison::comparison(&experiment.comparison, style, out)
}

/// The conclusion in a sentence.
pub fn sentence(experiment: &Experiment) -> String {
    let compared = comparison::sentence(&experiment.comparison);
    if let Some(reason) = &experiment.aborted {
        return format!(
            "Worse: a window with the change was ended early: {}.",
            printable(&reason.to_string())
        );
    }
    let suffered: Vec<&str> =
        experiment.guards.iter().filter(|guard| guard.worse).map(|guard| guard.name).collect();
    match experiment.conclusion {
        Conclusion::ImprovedAtACost => format!("At a cost in {}: {compared}", suffered.join(", ")),
        Conclusion::Worse if !suffered.is_empty() => {
            format!("Worse in {}: {compared}", suffered.join(", "))
        }
        _ => compared,
    }
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
        Setting::Kept => "Stability confirmed by a further window: the new value is in place.",
        Setting::NotConfirmed => {
            "A further window did not confirm it: the original value is in place."
        }
    }
}

fn guard(guard: &Guard) -> String {
    let verdict = if guard.worse { "worse" } else { "no worse" };
    format!("{}: {:.1}/s before, {:.1}/s after: {verdict}.", guard.name, guard.before, guard.after)
}

/// The line at the start of a window.
pub fn window_starts(at: u32, of: u32, changed: bool, length: Duration) -> String {
    let kind = if changed { "B, with the change" } else { "A, as it was" };
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
