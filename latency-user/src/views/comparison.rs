//! A comparison for people: the verdict in a sentence, then stages, then series that changed.

use std::io;

use crate::model::comparison::{
    Approach, BeforeAfter, ComparedRow, ComparedSide, Comparison, Exceedance, UnitKind, Verdict,
};

use super::{
    Style,
    format::{count, duration, ppm, short_duration},
    text::{paragraph, printable, shorten},
};

/// Maximum number of series shown individually.
const MOST_SERIES: usize = 16;

/// Writes a comparison.
///
/// # Errors
///
/// What `out` fails with.
pub fn comparison(
    comparison: &Comparison,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let mut text = String::new();
    let paint = if comparison.verdict == Verdict::Worse { Style::alarm } else { Style::bold };
    paragraph(&mut text, &sentence(comparison), 2, style, paint);
    if let Some(line) = power(comparison) {
        paragraph(&mut text, &line, 2, style, Style::plain);
    }
    out.write_all(text.as_bytes())?;
    details(comparison, style, out)
}

/// Writes what a comparison rests on: notes, sides, stages and series.
pub(super) fn details(
    comparison: &Comparison,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let mut text = String::new();
    if comparison.weak && comparison.stages.iter().any(differs) {
        paragraph(&mut text, &load_warning(comparison), 2, style, Style::alarm);
    }
    for note in &comparison.notes {
        let line = format!("note: {}", printable(&note.to_string()));
        paragraph(&mut text, &line, 2, style, Style::plain);
    }
    for (name, side) in [("before", &comparison.before), ("after", &comparison.after)] {
        paragraph(&mut text, &about(name, side), 2, style, Style::dim);
    }
    for row in &comparison.stages {
        text.push('\n');
        block(&mut text, row, style);
    }
    series(&mut text, comparison, style);
    let method = format!(
        "95% intervals; those of quantiles are approximate. * marks changes beyond chance in {}. \
         Other rows describe.",
        match comparison.tests {
            1 => "one test".to_owned(),
            tests => format!("{tests} tests"),
        }
    );
    text.push('\n');
    paragraph(&mut text, &method, 0, style, Style::dim);
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The verdict with its numbers: those of the test that decided.
pub fn sentence(comparison: &Comparison) -> String {
    let weak = if comparison.weak { "Possibly " } else { "" };
    let between = match comparison.unit {
        UnitKind::Interval => " between the recordings",
        _ => "",
    };
    let lead = deciding(comparison);
    let numbers = lead.map(|(row, exceedance)| change(row, exceedance)).unwrap_or_default();
    let verdict = match comparison.verdict {
        Verdict::Improved => format!("{weak}improved{between}: {numbers}."),
        Verdict::Worse => format!("{weak}worse{between}: {numbers}."),
        Verdict::NoDifferenceShown => match lead {
            Some((row, exceedance)) => {
                format!("No difference shown: {}.", no_change(comparison, row, exceedance))
            }
            None => "No difference shown: no stalls on either side.".into(),
        },
        Verdict::NotComparable => "Not comparable: see the notes.".into(),
    };
    let mut letters = verdict.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The test that the verdict rests on.
fn deciding(comparison: &Comparison) -> Option<(&ComparedRow, &Exceedance)> {
    let decision = comparison.decision.as_ref()?;
    let mut rows = comparison.stages.iter().chain(&comparison.series);
    let row = rows.find(|row| row.name == decision.name)?;
    Some((row, row.exceedance.first()?))
}

/// How much measuring would show a halving; for verdicts that show no difference.
pub fn power(comparison: &Comparison) -> Option<String> {
    if comparison.verdict != Verdict::NoDifferenceShown {
        return None;
    }
    if let Some(units) = comparison.units_for_halving {
        let all: usize = comparison.units.iter().sum();
        let what = match comparison.unit {
            UnitKind::Window => "windows",
            UnitKind::Host => "hosts",
            UnitKind::Recording | UnitKind::Interval => "recordings",
        };
        return Some(format!(
            "At this variation, {units} {what} show a halving of the stalls in 8 of 10 tries; these \
             were {all}."
        ));
    }
    let decision = comparison.decision.as_ref()?;
    let (low, high) = (decision.low?, decision.high?);
    // The interval is 2 * 1.96 standard errors wide; 2.8 of them show a halving in 8 of 10 tries.
    let error = (high / low).ln() / 3.92;
    let times = (2.8 * error / 2.0_f64.ln()).powi(2);
    (comparison.unit == UnitKind::Interval && times.is_finite()).then(|| match times {
        ..=1.0 => "Recordings of this length show a halving of the stalls in 8 of 10 tries.".into(),
        _ => format!(
            "Recordings {} times as long would show a halving of the stalls in 8 of 10 tries.",
            number(times.max(1.1))
        ),
    })
}

/// Rows of all stages for a page: name, before, after, ratio, interval, significance.
pub(super) fn rows(comparison: &Comparison) -> Vec<Vec<String>> {
    let of_stage = |row: &ComparedRow| -> Vec<Vec<String>> {
        let cells = |label: String, cells: [String; 5]| {
            let mut line = vec![format!("{} {label}", name(row))];
            line.extend(cells);
            line
        };
        let mut lines =
            vec![cells("a second".into(), changed(&row.per_second, rate, String::new()))];
        for exceedance in &row.exceedance {
            let how = if exceedance.significant { "more than chance" } else { "" };
            let label = format!("ppm >= {}", short_duration(exceedance.threshold_ns));
            lines.push(cells(label, tested(exceedance, how.into())));
        }
        for quantile in &row.quantiles {
            let label = format!("p{}", percent(quantile.quantile));
            lines
                .push(cells(label, changed(&quantile.ns, |ns| duration(ns as u64), String::new())));
        }
        let max = BeforeAfter::new(row.max_ns[0] as f64, row.max_ns[1] as f64);
        lines.push(cells("max".into(), changed(&max, |ns| duration(ns as u64), String::new())));
        lines
    };
    comparison.stages.iter().flat_map(of_stage).collect()
}

/// As [`change`], without an interval that would contradict that no difference is shown.
fn no_change(comparison: &Comparison, row: &ComparedRow, exceedance: &Exceedance) -> String {
    if !exceedance.excludes_one() {
        return change(row, exceedance);
    }
    let without = Exceedance { estimate: None, low: None, high: None, ..exceedance.clone() };
    let per_second = &exceedance.per_second;
    let why = match exceedance.p.is_some_and(|p| p < comparison.level) {
        true => format!(", within chance for {} tests", comparison.tests),
        false => {
            format!(
                "; per second {} before, {} after",
                rate(per_second.before),
                rate(per_second.after)
            )
        }
    };
    change(row, &without) + &why
}

/// `net_rx at or above 1ms 70.6 ppm before (260), 10.9 ppm after (39): 0.15 times, 0.11 to 0.21`.
fn change(row: &ComparedRow, exceedance: &Exceedance) -> String {
    let times = match (exceedance.estimate, interval(exceedance.low, exceedance.high)) {
        (Some(ratio), Some(interval)) => format!(": {} times, {interval}", number(ratio)),
        (None, Some(interval)) => format!(": times {interval}"),
        _ => String::new(),
    };
    let counted = exceedance.counted();
    let stolen = match exceedance.stolen {
        [0, 0] => String::new(),
        [before, after] => {
            format!(", without {} and {} of the hypervisor", count(before), count(after))
        }
    };
    format!(
        "{} at or above {} {} ppm before ({}), {} ppm after ({}){stolen}{times}",
        name(row),
        short_duration(exceedance.threshold_ns),
        ppm(exceedance.ppm.before),
        count(counted[0]),
        ppm(exceedance.ppm.after),
        count(counted[1]),
    )
}

/// Whether a stage that stalled was compared under different loads.
fn differs(row: &ComparedRow) -> bool {
    row.loads_differ() && row.has_stalls()
}

fn load_warning(comparison: &Comparison) -> String {
    let furthest = comparison.stages.iter().filter(|row| differs(row));
    let furthest = furthest.max_by(|a, b| distance(a).total_cmp(&distance(b)));
    let load = furthest.map_or_else(String::new, |row| {
        format!(
            " {}: {} a second before, {} after.",
            name(row),
            rate(row.per_second.before),
            rate(row.per_second.after)
        )
    });
    format!(
        "THE LOADS DIFFER BY MORE THAN 20%:{load} Rates per event compare different loads, so only \
         changes that also show in stalls per second count, and the verdict is weak."
    )
}

fn distance(row: &ComparedRow) -> f64 {
    row.per_second.ratio.map_or(f64::INFINITY, |ratio| ratio.max(f64::MIN_POSITIVE).ln().abs())
}

fn about(name: &str, side: &ComparedSide) -> String {
    let recordings = match &side.recordings[..] {
        [one] => one.clone(),
        all => format!("{} recordings", all.len()),
    };
    let list = |what: &str, all: &[String]| match all {
        [] => String::new(),
        [one] => format!(", {what}{one}"),
        all => format!(", {} {}s", all.len(), if what.is_empty() { "host" } else { "kernel" }),
    };
    printable(&format!(
        "{name}: {recordings}{}{}, {} in {} intervals",
        list("", &side.hosts),
        list("Linux ", &side.kernels),
        duration((side.duration_s * 1e9) as u64),
        side.intervals
    ))
}

fn name(row: &ComparedRow) -> String {
    printable(row.name.strip_prefix("stage=").unwrap_or(&row.name))
}

/// The rows of one stage.
fn block(text: &mut String, row: &ComparedRow, style: Style) {
    let title =
        line(&name(row), ["before", "after", "times", "95% interval", ""].map(str::to_owned));
    text.push_str(&style.bold(&title));
    text.push('\n');
    let mut put = |label: &str, cells: [String; 5], alarm: bool| {
        let line = line(label, cells);
        text.push_str(&if alarm { style.alarm(&line) } else { line });
        text.push('\n');
    };
    put(
        "  events",
        [count(row.events[0]), count(row.events[1]), String::new(), String::new(), String::new()],
        false,
    );
    put("  events/s", changed(&row.per_second, rate, String::new()), false);
    for exceedance in &row.exceedance {
        let label = format!("  ppm >= {}", short_duration(exceedance.threshold_ns));
        let how = match exceedance.method {
            Approach::Groups => "grouped",
            Approach::Exact => "exact",
            Approach::Regression => "by unit",
            Approach::Paired => "paired",
            Approach::None => "",
        };
        let mark = if exceedance.significant { "* " } else { "" };
        let cells = tested(exceedance, format!("{mark}{how}"));
        put(&label, cells, exceedance.significant && exceedance.is_higher());
        if exceedance.stolen != [0, 0] {
            let [before, after] = exceedance.stolen.map(count);
            put(
                "  + hypervisor",
                [before, after, String::new(), String::new(), String::new()],
                false,
            );
        }
    }
    for quantile in &row.quantiles {
        let label = format!("  p{}", percent(quantile.quantile));
        put(&label, changed(&quantile.ns, |ns| duration(ns as u64), String::new()), false);
    }
    let max = BeforeAfter::new(row.max_ns[0] as f64, row.max_ns[1] as f64);
    let mut cells = changed(&max, |ns| duration(ns as u64), String::new());
    cells[3] = format!("<= {}/{} ppm longer", ppm(row.longer_ppm[0]), ppm(row.longer_ppm[1]));
    put("  max", cells, false);
}

/// The cells of a rate of stalls, with the interval of its test.
fn tested(exceedance: &Exceedance, how: String) -> [String; 5] {
    let ratio = exceedance.estimate.or(exceedance.ppm.ratio);
    [
        ppm(exceedance.ppm.before),
        ppm(exceedance.ppm.after),
        ratio.map(number).unwrap_or_default(),
        interval(exceedance.low, exceedance.high).unwrap_or_default(),
        how,
    ]
}

fn changed(change: &BeforeAfter, show: impl Fn(f64) -> String, how: String) -> [String; 5] {
    [
        show(change.before),
        show(change.after),
        change.ratio.map(number).unwrap_or_default(),
        interval(change.ratio_low, change.ratio_high).unwrap_or_default(),
        how,
    ]
}

fn line(label: &str, [before, after, times, interval, how]: [String; 5]) -> String {
    let line = format!("{label:<16} {before:>9} {after:>9} {times:>7} {interval:>18} {how}");
    line.trim_end().to_owned()
}

/// Series that changed most. They decide only in logs without stages.
fn series(text: &mut String, comparison: &Comparison, style: Style) {
    if comparison.series.is_empty() {
        return;
    }
    let decide = comparison.stages.is_empty();
    let all = comparison.series.len() as f64;
    let shows = |exceedance: &Exceedance| match decide {
        true => exceedance.significant,
        false => exceedance.p.is_some_and(|p| p * all < comparison.level),
    };
    let mut changed: Vec<(&ComparedRow, &Exceedance)> = comparison
        .series
        .iter()
        .filter_map(|row| Some((row, row.exceedance.first()?)))
        .filter(|(_, exceedance)| shows(exceedance))
        .collect();
    changed.sort_by(|(_, a), (_, b)| a.p.unwrap_or(1.0).total_cmp(&b.p.unwrap_or(1.0)));
    text.push('\n');
    let what = match (decide, changed.is_empty()) {
        (_, true) => ".",
        (true, false) => ", ppm at or above the threshold:",
        (false, false) => ", ppm at or above the threshold (the stages decide, this describes):",
    };
    let series = comparison.series.len();
    let title = format!("{} of {series} series changed by more than chance{what}", changed.len());
    paragraph(text, &title, 2, style, Style::bold);
    for (row, exceedance) in changed.iter().take(MOST_SERIES) {
        let label = format!("  {:<30}", shorten(&name(row), 30));
        let [before, after, times, interval, _] = tested(exceedance, String::new());
        let numbers = format!("{label} {before:>8} {after:>8} {times:>7} {interval:>18}");
        text.push_str(&if exceedance.is_higher() { style.alarm(&numbers) } else { numbers });
        text.push('\n');
    }
    if changed.len() > MOST_SERIES {
        text.push_str(&format!("  + {} more\n", changed.len() - MOST_SERIES));
    }
}

/// `0.11 to 0.21`, `at least 3.4`.
fn interval(low: Option<f64>, high: Option<f64>) -> Option<String> {
    let low = low?;
    Some(match high {
        Some(high) => format!("{} to {}", number(low), number(high)),
        None => format!("at least {}", number(low)),
    })
}

/// A factor with two or three significant digits.
fn number(value: f64) -> String {
    match value {
        ..0.0005 => "0".into(),
        ..0.1 => format!("{value:.3}"),
        ..10.0 => format!("{value:.2}"),
        ..1000.0 => format!("{value:.0}"),
        _ => ">999".into(),
    }
}

fn rate(per_second: f64) -> String {
    if per_second < 10.0 { format!("{per_second:.2}") } else { count(per_second.round() as u64) }
}

/// `99.9` of 0.999.
fn percent(quantile: f64) -> String {
    let text = format!("{:.4}", quantile * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{comparison::Decision, note::Note};

    fn sample(verdict: Verdict, weak: bool) -> Comparison {
        let side = |n: u32| ComparedSide {
            recordings: vec![format!("{}.hlog", "x".repeat(70))],
            hosts: vec![format!("web-{n}")],
            kernels: vec!["6.12".into()],
            duration_s: 30.0,
            intervals: 30,
            parts: 30,
        };
        let exceedance = Exceedance {
            threshold_ns: 1_000_000,
            stalls: [260, 42],
            stolen: [0, 3],
            ppm: BeforeAfter::new(70.55, 10.93),
            per_second: BeforeAfter::new(8.67, 1.3),
            estimate: Some(0.155),
            low: Some(0.11),
            high: Some(0.21),
            p: Some(1e-9),
            p_corrected: Some(1e-7),
            method: Approach::Groups,
            decides: true,
            significant: true,
        };
        let row = ComparedRow {
            name: "stage=net_rx".into(),
            events: [3_685_271, 3_567_235],
            per_second: BeforeAfter::new(122_842.0, 118_907.0),
            exceedance: vec![exceedance],
            quantiles: Vec::new(),
            max_ns: [21_400_000, 3_000_000],
            longer_ppm: [0.8, 0.8],
        };
        let series = (0..20)
            .map(|n| ComparedRow {
                name: format!("stage=napi_poll;if={}{n};q=3", "e".repeat(40)),
                ..row.clone()
            })
            .collect();
        Comparison {
            verdict,
            weak,
            decision: Some(Decision {
                name: "stage=net_rx".into(),
                estimate: Some(0.155),
                low: Some(0.11),
                high: Some(0.21),
                p: 1e-7,
                method: Approach::Groups,
            }),
            unit: UnitKind::Interval,
            units: [30, 30],
            units_for_halving: None,
            level: 0.05,
            notes: vec![Note::KernelsDiffer { before: "6.1".into(), after: "6.12".into() }],
            before: side(1),
            after: side(2),
            tests: 21,
            stages: vec![row],
            series,
        }
    }

    fn shown(comparison: &Comparison) -> String {
        let mut out = Vec::new();
        super::comparison(comparison, Style { colour: false, width: 80 }, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        text
    }

    #[test]
    fn the_verdict_comes_first_with_its_numbers() {
        let text = shown(&sample(Verdict::Improved, false));
        let sentence = "Improved between the recordings: net_rx at or above 1ms 70.5 ppm before \
                        (260), 10.9 ppm after (39), without 0 and 3 of the hypervisor: 0.15 times, \
                        0.11 to 0.21.";
        assert!(
            text.split_whitespace().eq(sentence
                .split_whitespace()
                .chain(text.split_whitespace().skip(sentence.split_whitespace().count()))),
            "{text}"
        );
        assert!(text.contains("+ 4 more"));
    }

    #[test]
    fn different_loads_are_reported_prominently() {
        let mut comparison = sample(Verdict::Improved, true);
        comparison.stages[0].per_second = BeforeAfter::new(122_842.0, 60_000.0);
        let text = shown(&comparison);
        assert!(text.starts_with("Possibly improved between the recordings: "), "{text}");
        assert!(text.contains("\nTHE LOADS DIFFER BY MORE THAN 20%: net_rx: 122842 a second"));
    }
}
