//! Triage: from two samples of a host to findings, the path taken and a verdict.
//!
//! Owns the flow. `sources` lists what is read, `snapshot` is what a rule sees, `rules` holds the
//! rules, and `archive` saves and loads captures.

mod archive;
mod nic_counters;
mod placement;
mod rule_answer;
mod rules;
mod snapshot;
mod sources;
mod trace;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

pub use self::{
    archive::{load, save},
    snapshot::HostSnapshot,
    sources::listed,
};
use self::{
    rule_answer::Answer,
    rules::{RULES, Rule},
    snapshot::Unknown,
    trace::ShortTrace,
};
use crate::{
    host::nic::directory::NicDirectory,
    model::{
        finding::{Finding, Outcome, RuleAnswer, StepAnswer, Triage, TriageStep},
        remedy::{Change, Step, knob::Knob},
    },
};

/// How to sample a live host.
#[derive(Clone, Debug)]
pub struct SampleConfig {
    /// Time between the two samples.
    pub duration: Duration,
    /// Whether to run a short trace between the samples, if kernel and privileges allow it.
    pub trace: bool,
    /// Maximum share of any CPU that the trace may take, 0 to 1; `None`: no limit.
    pub max_overhead: Option<f64>,
    /// The control socket of a daemon, which traces if it is there; `None`: there is none.
    pub daemon: Option<PathBuf>,
}

/// Samples the host below `root` twice.
pub fn sample(root: &Path, nics: &mut dyn NicDirectory, config: &SampleConfig) -> HostSnapshot {
    // Start the trace before the first sample, which must not include the CPU time of loading it.
    let mut trace = match config.trace {
        true => ShortTrace::start(config.max_overhead, config.daemon.as_deref()),
        false => Err("it was not requested".into()),
    };
    let started = Instant::now();
    let first = sources::gather(root, nics, false);
    let left = config.duration.saturating_sub(started.elapsed());
    if let Ok(running) = &mut trace
        && let Err(reason) = running.follow(left)
    {
        trace = Err(reason);
    }
    thread::sleep(config.duration.saturating_sub(started.elapsed()));
    let elapsed = started.elapsed();
    let mut second = sources::gather(root, nics, true);
    let stalls = trace.and_then(ShortTrace::finish);
    sources::put(&mut second, sources::TRACE, Ok(stalls));
    HostSnapshot::new(first, second, elapsed)
}

/// Applies all rules to a host and to those of its interfaces that `ifaces` names.
pub fn judge(host: &HostSnapshot, ifaces: &[String]) -> Triage {
    let mut findings = Vec::new();
    let mut path: Vec<StepAnswer> = Vec::new();
    for step in TriageStep::ALL {
        let mut answers = Vec::new();
        for rule in RULES.iter().filter(|rule| rule.step == step) {
            let answered = (rule.check)(host, ifaces)
                .unwrap_or_else(|Unknown(reason)| vec![Answer::Unknown(reason)]);
            for answer in answered {
                answers.push(note(rule, answer, &mut findings));
            }
        }
        path.push(StepAnswer {
            step,
            question: step.question(),
            outcome: sum_up(&answers),
            rules: answers,
        });
    }
    findings
        .sort_by(|a: &Finding, b| b.detail.weight.cmp(&a.detail.weight).then(a.step.cmp(&b.step)));
    one_advice_per_knob(&mut findings);
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

/// Where findings advise different values for one setting, the heaviest one keeps its advice.
fn one_advice_per_knob(findings: &mut [Finding]) {
    let mut taken: BTreeMap<(Option<u32>, Knob), (&'static str, Change)> = BTreeMap::new();
    for finding in findings {
        let Some(remedy) = finding.detail.step.remedy() else { continue };
        let key = |change: &Change| (remedy.namespace, change.knob.rival());
        let rivals: Vec<_> = remedy.changes.iter().map(|change| taken.get(&key(change))).collect();
        let pairs = || rivals.iter().zip(&remedy.changes);
        let other = pairs().find_map(|(rival, change)| rival.filter(|(_, taken)| taken != change));
        // The same change may help both.
        let is_same = !rivals.is_empty() && rivals.iter().all(Option::is_some);
        if let Some((rule, _)) = other.or(rivals.first().copied().flatten().filter(|_| is_same)) {
            let about = match other {
                Some(_) => format!(
                    " Its setting is one that {rule}, which weighs more, wants otherwise: do that \
                     first."
                ),
                None => format!(" What {rule} advises helps here, too."),
            };
            finding.detail.seen.push_str(&about);
            finding.detail.step =
                Step::Look(crate::model::remedy::trace(finding.detail.iface.as_deref()));
            continue;
        }
        for change in &remedy.changes {
            taken.insert(key(change), (finding.rule, change.clone()));
        }
    }
}

fn note(rule: &Rule, answer: Answer, findings: &mut Vec<Finding>) -> RuleAnswer {
    let (outcome, text) = match answer {
        Answer::Ok(text) => (Outcome::Ok, text),
        Answer::Unknown(reason) => (Outcome::Unknown, reason),
        Answer::Finding(detail) => {
            let seen = detail.seen.clone();
            findings.push(Finding { rule: rule.name, step: rule.step, detail: *detail });
            (Outcome::Finding, seen)
        }
    };
    RuleAnswer { rule: rule.name, outcome, text }
}

/// A finding outweighs all other answers; a step is unknown when all its rules are.
fn sum_up(answers: &[RuleAnswer]) -> Outcome {
    let has = |outcome| answers.iter().any(|answer| answer.outcome == outcome);
    if has(Outcome::Finding) {
        Outcome::Finding
    } else if has(Outcome::Ok) {
        Outcome::Ok
    } else {
        Outcome::Unknown
    }
}

fn count(path: &[StepAnswer], outcome: Outcome) -> usize {
    path.iter().flat_map(|step| &step.rules).filter(|answer| answer.outcome == outcome).count()
}

fn verdict(findings: &[Finding], unknown: usize, ok: usize) -> String {
    let open = match unknown {
        0 => String::new(),
        1 => " 1 question remains open.".into(),
        more => format!(" {more} questions remain open."),
    };
    match findings {
        [] if ok == 0 => format!("No question could be answered.{open}"),
        [] => format!("Nothing was found.{open}"),
        [only] => format!("Start with {}, the only finding: {}{open}", only.rule, only.detail.seen),
        [first, rest @ ..] => format!(
            "Start with {}, the heaviest of {} findings: {}{open}",
            first.rule,
            rest.len() + 1,
            first.detail.seen
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::file_tree::FileTree;

    #[test]
    fn an_empty_host_leaves_every_rule_unknown() {
        let host =
            HostSnapshot::new(FileTree::default(), FileTree::default(), Duration::from_secs(5));
        let triage = judge(&host, &["eth0".into()]);
        for answer in triage.path.iter().flat_map(|step| &step.rules) {
            assert_eq!(answer.outcome, Outcome::Unknown, "{}: {}", answer.rule, answer.text);
            assert!(!answer.text.is_empty());
        }
        assert_eq!((triage.found, triage.unknown), (0, RULES.len()));
        assert!(triage.verdict.starts_with("No question could be"), "{}", triage.verdict);
    }

    #[test]
    fn every_rule_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
        assert_eq!(names.len(), RULES.len());
    }
}
