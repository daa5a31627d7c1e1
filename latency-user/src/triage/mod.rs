//! Triage: from two samples of a host to findings, the path taken and a verdict.
//!
//! Owns the flow. What is read lies in `files`, what a rule may see in `host`, the rules in
//! `rules`; captures are `archive`'s.

mod archive;
mod rule_answer;
mod rules;
mod snapshot;
mod sources;
mod trace;

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

pub use self::{
    archive::{load, save},
    snapshot::Host,
    sources::listed,
};
use self::{
    rule_answer::{Answer, Found},
    rules::{RULES, Rule},
    snapshot::Unknown,
    trace::ShortTrace,
};
use crate::{
    host::nic::directory::NicDirectory,
    model::finding::{Finding, Outcome, RuleAnswer, Step, StepTaken, Triage},
};

/// How often the records of a short trace are read.
const TICK: Duration = Duration::from_millis(50);

/// Samples the host below `root` twice, `duration` apart. With `trace`, a short trace runs
/// meanwhile, as far as the kernel and the privileges allow.
pub fn sample(root: &Path, nics: &mut dyn NicDirectory, duration: Duration, trace: bool) -> Host {
    // Started first: loading the programs takes CPU time that the host must not be blamed for.
    let mut short_trace = match trace {
        true => ShortTrace::start(),
        false => Err("it was not asked for".into()),
    };
    let began = Instant::now();
    let first = sources::gather(root, nics, false);
    while began.elapsed() < duration {
        thread::sleep(TICK.min(duration.saturating_sub(began.elapsed())));
        if let Ok(short_trace) = &mut short_trace {
            short_trace.drain();
        }
    }
    let elapsed = began.elapsed();
    let mut second = sources::gather(root, nics, true);
    let stalls = short_trace.and_then(ShortTrace::finish);
    sources::put(&mut second, sources::TRACE, Ok(stalls));
    Host::new(first, second, elapsed)
}

/// Applies all rules to a host, and of its interfaces to those that are named.
pub fn judge(host: &Host, ifaces: &[String]) -> Triage {
    let mut findings = Vec::new();
    let mut path: Vec<StepTaken> = Vec::new();
    for step in Step::ALL {
        let mut answers = Vec::new();
        for rule in RULES.iter().filter(|rule| rule.step == step) {
            let said = (rule.check)(host, ifaces)
                .unwrap_or_else(|Unknown(reason)| vec![Answer::Unknown(reason)]);
            for answer in said {
                answers.push(note(rule, answer, &mut findings));
            }
        }
        path.push(StepTaken {
            step,
            question: step.question(),
            outcome: sum_up(&answers),
            rules: answers,
        });
    }
    findings.sort_by(|a: &Finding, b| b.weight.cmp(&a.weight).then(a.step.cmp(&b.step)));
    let unknown = count(&path, Outcome::Unknown);
    Triage {
        kernel: host.setting("proc/sys/kernel/osrelease").ok().map(str::to_owned),
        duration_s: host.elapsed.as_secs_f64(),
        ifaces: ifaces.to_vec(),
        found: findings.len(),
        unknown,
        verdict: verdict(&findings, unknown, count(&path, Outcome::Ok)),
        path,
        findings,
    }
}

fn note(rule: &Rule, answer: Answer, findings: &mut Vec<Finding>) -> RuleAnswer {
    let (outcome, said) = match answer {
        Answer::Ok(said) => (Outcome::Ok, said),
        Answer::Unknown(reason) => (Outcome::Unknown, reason),
        Answer::Finding(found) => {
            let finding = finding(rule, *found);
            let seen = finding.seen.clone();
            findings.push(finding);
            (Outcome::Finding, seen)
        }
    };
    RuleAnswer { rule: rule.name, outcome, said }
}

fn finding(rule: &Rule, found: Found) -> Finding {
    Finding {
        rule: rule.name,
        step: rule.step,
        subject: found.subject,
        weight: found.weight,
        seen: found.seen,
        numbers: found.numbers,
        why: found.why,
        next: found.next,
        undo: found.undo,
        confirm: found.confirm,
    }
}

/// A finding outweighs all; a step is unknown when none of its rules could tell.
fn sum_up(answers: &[RuleAnswer]) -> Outcome {
    let has = |outcome| answers.iter().any(|one| one.outcome == outcome);
    if has(Outcome::Finding) {
        Outcome::Finding
    } else if has(Outcome::Ok) {
        Outcome::Ok
    } else {
        Outcome::Unknown
    }
}

fn count(path: &[StepTaken], outcome: Outcome) -> usize {
    path.iter().flat_map(|step| &step.rules).filter(|one| one.outcome == outcome).count()
}

fn verdict(findings: &[Finding], unknown: usize, ok: usize) -> String {
    let open = match unknown {
        0 => String::new(),
        1 => " 1 question stays open.".into(),
        more => format!(" {more} questions stay open."),
    };
    match findings {
        [] if ok == 0 => format!("Nothing can be said of this host.{open}"),
        [] => format!("Nothing was found.{open}"),
        [one] => format!("Start with {}, the only finding: {}{open}", one.rule, one.seen),
        [first, rest @ ..] => format!(
            "Start with {}, the heaviest of {} findings: {}{open}",
            first.rule,
            rest.len() + 1,
            first.seen
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::file_tree::Tree;

    #[test]
    fn a_host_that_tells_nothing_leaves_every_rule_unknown() {
        let host = Host::new(Tree::default(), Tree::default(), Duration::from_secs(5));
        let triage = judge(&host, &["eth0".into()]);
        for answer in triage.path.iter().flat_map(|step| &step.rules) {
            assert_eq!(answer.outcome, Outcome::Unknown, "{}: {}", answer.rule, answer.said);
            assert!(!answer.said.is_empty());
        }
        assert_eq!((triage.found, triage.unknown), (0, RULES.len()));
        assert!(triage.verdict.starts_with("Nothing can be said"), "{}", triage.verdict);
    }

    #[test]
    fn every_rule_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
        assert_eq!(names.len(), RULES.len());
    }
}
