//! Checks every rule on hosts where it must find something, must find nothing, and cannot decide.

use std::collections::{BTreeMap, BTreeSet};

use latency_user::model::finding::{Outcome, RuleAnswer, Triage};

use crate::captured::{self, Captured};

fn answers<'a>(triage: &'a Triage, rule: &str) -> Vec<&'a RuleAnswer> {
    triage.path.iter().flat_map(|step| &step.rules).filter(|answer| answer.rule == rule).collect()
}

fn check(captured: &Captured) -> Result<(), String> {
    let triage = captured.judge();
    let answers = answers(&triage, &captured.rule);
    let outcomes: BTreeSet<Outcome> = answers.iter().map(|answer| answer.outcome).collect();
    let expected = match captured.expected.as_str() {
        "finding" => {
            // Other namespaces and disks may be fine.
            let found = outcomes.contains(&Outcome::Finding);
            return if found { check_finding(captured, &triage) } else { Err(describe(&answers)) };
        }
        "ok" => Outcome::Ok,
        "unknown" => Outcome::Unknown,
        other => return Err(format!("{other} is not an answer")),
    };
    if outcomes == BTreeSet::from([expected]) { Ok(()) } else { Err(describe(&answers)) }
}

fn describe(answers: &[&RuleAnswer]) -> String {
    let lines: Vec<String> =
        answers.iter().map(|answer| format!("{:?}: {}", answer.outcome, answer.text)).collect();
    lines.join("; ")
}

fn check_finding(captured: &Captured, triage: &Triage) -> Result<(), String> {
    let findings: Vec<_> =
        triage.findings.iter().filter(|finding| finding.rule == captured.rule).collect();
    let [finding] = findings[..] else { return Err(format!("{} findings", findings.len())) };
    let (next, undo) = (finding.detail.next(), finding.detail.undo());
    if Some(&next) != captured.next.as_ref() || undo != captured.undo {
        return Err(format!("next: {next}\nundo: {undo:?}"));
    }
    let confirms = ["latency-user trace ", "latency-user experiment "];
    let complete = (1..=100).contains(&finding.detail.weight)
        && !finding.detail.seen.is_empty()
        && !finding.detail.why.is_empty()
        && confirms.iter().any(|start| finding.detail.confirm().starts_with(start))
        && finding.detail.numbers.iter().all(|number| !number.source.is_empty())
        && !finding.detail.numbers.is_empty();
    if complete { Ok(()) } else { Err(format!("something is missing: {finding:?}")) }
}

#[test]
fn each_host_gets_its_expected_answer() {
    let failures: Vec<String> = captured::all()
        .iter()
        .filter_map(|captured| Some(format!("{}: {}", captured.place, check(captured).err()?)))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn each_rule_has_a_host_of_every_kind() {
    let hosts = captured::all();
    let rules: BTreeSet<&str> = hosts[0]
        .judge()
        .path
        .iter()
        .flat_map(|step| &step.rules)
        .map(|answer| answer.rule)
        .collect();
    let mut kinds: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for host in &hosts {
        kinds.entry(&host.rule).or_default().insert(&host.expected);
    }
    let every = BTreeSet::from(["finding", "ok", "unknown"]);
    for rule in &rules {
        assert_eq!(kinds.get(rule), Some(&every), "{rule}");
    }
    assert_eq!(kinds.keys().copied().collect::<BTreeSet<_>>(), rules);
}

/// A change must be undone by the same command with another value.
#[test]
fn undo_uses_the_same_command_as_next() {
    for host in captured::all().iter().filter(|host| host.undo.is_some()) {
        let word = |command: &str| command.split(' ').next().unwrap_or_default().to_owned();
        let (next, undo) = (host.next.as_deref().unwrap(), host.undo.as_deref().unwrap());
        assert_eq!(word(next), word(undo), "{}", host.place);
        assert_ne!(next, undo, "{}", host.place);
    }
}
