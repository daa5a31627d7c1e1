//! What triage found, for people: the verdict, the path taken, the findings.

use std::io;

use super::{
    Style,
    text::{paragraph, printable},
};
use crate::model::finding::{Finding, Number, Outcome, RuleAnswer, StepAnswer, Triage};

/// Width of the labels of a finding's parts.
const LABELS: usize = 12;

/// Writes the verdict, the path as a tree, and the findings, heaviest first. With `all`, the tree
/// shows every rule; otherwise it only counts the rules that are ok.
///
/// # Errors
///
/// What `out` fails with.
pub fn triage(triage: &Triage, all: bool, style: Style, out: &mut dyn io::Write) -> io::Result<()> {
    let mut text = String::new();
    let emphasis = if triage.found > 0 { Style::alarm } else { Style::bold };
    paragraph(&mut text, &printable(&triage.verdict), 2, style, emphasis);
    paragraph(&mut text, &about(triage), 2, style, Style::dim);
    text.push('\n');
    for step in &triage.path {
        self::step(&mut text, step, all, style);
    }
    for (number, finding) in triage.findings.iter().enumerate() {
        text.push('\n');
        self::finding(&mut text, number + 1, finding, style);
    }
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn about(triage: &Triage) -> String {
    let kernel = triage.kernel.as_deref().unwrap_or("of unknown release");
    let ifaces = match &triage.ifaces[..] {
        [] => "no interface".to_owned(),
        names => names.join(", "),
    };
    printable(&format!("Linux {kernel}, {ifaces}, over {:.1} s.", triage.duration_s))
}

fn step(text: &mut String, step: &StepAnswer, all: bool, style: Style) {
    let (answer, paint): (_, fn(Style, &str) -> String) = match step.outcome {
        Outcome::Finding => ("yes", Style::alarm),
        Outcome::Ok => ("no", Style::bold),
        Outcome::Unknown => ("unknown", Style::bold),
    };
    text.push_str(&format!("{} {}\n", step.question, paint(style, answer)));
    let shown: Vec<&RuleAnswer> =
        step.rules.iter().filter(|rule| all || rule.outcome != Outcome::Ok).collect();
    let hidden = step.rules.len() - shown.len();
    for (index, rule) in shown.iter().enumerate() {
        let last = index + 1 == shown.len() && hidden == 0;
        branch(
            text,
            &described(rule),
            last,
            style,
            match rule.outcome {
                Outcome::Finding => Style::bold,
                Outcome::Ok => Style::plain,
                Outcome::Unknown => Style::dim,
            },
        );
    }
    if hidden > 0 {
        let plural = if hidden == 1 { "answer" } else { "answers" };
        branch(text, &format!("ok: {hidden} more {plural}"), true, style, Style::dim);
    }
}

fn described(rule: &RuleAnswer) -> String {
    let outcome = match rule.outcome {
        Outcome::Finding => "FOUND",
        Outcome::Ok => "ok",
        Outcome::Unknown => "unknown, because",
    };
    match rule.outcome {
        // The finding itself shows the text.
        Outcome::Finding => format!("{}: {outcome}", rule.rule),
        _ => printable(&format!("{}: {outcome}: {}", rule.rule, rule.text)),
    }
}

fn branch(
    text: &mut String,
    words: &str,
    last: bool,
    style: Style,
    paint: fn(Style, &str) -> String,
) {
    let (first, rest) = if last { ("`- ", "   ") } else { ("|- ", "|  ") };
    let mut lines = String::new();
    // Subtract the tree's own columns from the width.
    let narrow = Style { width: style.columns() - first.len(), ..style };
    paragraph(&mut lines, words, 2, narrow, Style::plain);
    for (index, line) in lines.lines().enumerate() {
        text.push_str(if index == 0 { first } else { rest });
        text.push_str(&paint(style, line));
        text.push('\n');
    }
}

fn finding(text: &mut String, number: usize, finding: &Finding, style: Style) {
    let about =
        finding.detail.subject.as_ref().map(|subject| format!(" ({subject})")).unwrap_or_default();
    let title = format!("{number}. {}{about}, weight {}", finding.rule, finding.detail.weight);
    paragraph(text, &printable(&title), 3, style, Style::bold);
    let mut part = |name: &str, words: &str| {
        let mut lines = String::new();
        let indented = format!("{:LABELS$}{}", "", printable(words));
        paragraph(&mut lines, &indented, LABELS, style, Style::plain);
        // Insert the label last: wrapping would collapse the spaces behind it.
        lines.replace_range(3..3 + name.len(), name);
        text.push_str(&lines);
    };
    part("seen", &finding.detail.seen);
    for number in &finding.detail.numbers {
        part("", &describe(number));
    }
    part("why", finding.detail.why);
    part("next", &finding.detail.next());
    for effect in finding.detail.side_effects() {
        part("beware", effect);
    }
    let undo = finding.detail.undo();
    part("undo", undo.as_deref().unwrap_or("nothing to undo: it changes nothing"));
    if let Some(persist) = finding.detail.persist() {
        part("keep", &persist);
    }
    part("confirm", &finding.detail.confirm());
}

fn describe(number: &Number) -> String {
    let unit = match number.unit {
        "" => String::new(),
        unit => format!(" {unit}"),
    };
    let threshold = number
        .threshold
        .map(|threshold| format!(", threshold {}{unit}", short(threshold)))
        .unwrap_or_default();
    format!("- {}: {}{unit}{threshold} [{}]", number.what, short(number.value), number.source)
}

/// Integers as they are, other numbers with two decimals.
fn short(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        finding::{Detail, TriageStep},
        remedy::{Remedy, Step, knob::Knob, value::Value},
    };

    fn sample() -> Triage {
        let found = Finding {
            rule: "tcp_collapse",
            step: TriageStep::Tcp,
            detail: Detail {
                subject: Some("network namespace 4026532000 \x1b[31m".into()),
                weight: 96,
                seen: "In it receive queues were collapsed: TCPRcvCollapsed +100000.".into(),
                numbers: vec![Number {
                    what: "TCPRcvCollapsed".into(),
                    value: 100_000.0,
                    unit: "",
                    threshold: Some(1.0),
                    source: "/proc/net/netstat".into(),
                }],
                why: "The kernel walks and copies a whole receive queue within one softirq.",
                step: Step::Change(Remedy::one(
                    Knob::Sysctl("net.ipv4.tcp_rmem"),
                    Value::numbers(&[4096, 131_072, 33_554_432]),
                    Value::numbers(&[4096, 1_048_576, 2_097_152]),
                )),
                iface: None,
            },
        };
        let answer = |rule, outcome, text: &str| RuleAnswer { rule, outcome, text: text.into() };
        let step = |step: TriageStep, outcome, rules| StepAnswer {
            step,
            question: step.question(),
            outcome,
            rules,
        };
        Triage {
            kernel: Some("6.18.44".into()),
            duration_s: 5.0,
            ifaces: vec!["eth0".into(), "a\x1bb".into()],
            path: vec![
                step(TriageStep::Io, Outcome::Ok, vec![answer("iowait", Outcome::Ok, "0.1 %")]),
                step(
                    TriageStep::Tcp,
                    Outcome::Finding,
                    vec![
                        answer("tcp_collapse", Outcome::Finding, "In it ..."),
                        answer(
                            "tcp_buffers",
                            Outcome::Unknown,
                            "/proc/sys/net/ipv4/tcp_rmem cannot be read: permission denied, which \
                             takes more than one line to say",
                        ),
                    ],
                ),
            ],
            found: 1,
            unknown: 1,
            verdict: "Start with tcp_collapse, the only finding.".into(),
            findings: vec![found],
        }
    }

    fn text(all: bool, colour: bool) -> String {
        let mut out = Vec::new();
        triage(&sample(), all, Style { colour, width: 80 }, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_part_of_a_finding_is_shown_in_80_columns() {
        let text = text(false, false);
        for part in [
            "Do tasks wait for disks? no",
            "`- ok: 1 more answer",
            "|- tcp_collapse: FOUND",
            "`- tcp_buffers: unknown, because",
            "threshold 1 [/proc/net/netstat]",
            "   why      The kernel walks",
            "   next     sysctl -w net.ipv4.tcp_rmem=\"4096 1048576 2097152\"",
            "   undo     sysctl -w net.ipv4.tcp_rmem=\"4096 131072 33554432\"",
            "   keep     echo 'net.ipv4.tcp_rmem = 4096 1048576 2097152'",
            "   confirm  latency-user experiment --set",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn all_answers_are_shown_when_asked_for() {
        assert!(text(true, false).contains("iowait: ok: 0.1 %"));
        assert!(text(false, true).contains("\x1b[1;31myes"));
    }
}
