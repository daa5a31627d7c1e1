//! What triage concludes: answers of rules, findings with their evidence, the path and a verdict.

use serde::{Serialize, Serializer};

use super::remedy::{Change, Remedy, Step};

/// The steps of the flow, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TriageStep {
    /// Do tasks wait for disks?
    Io,
    /// What do the CPUs spend their time on?
    Cpu,
    /// Which hard IRQs and softirqs are hot, and where?
    Irq,
    /// Are the NIC's queues and offloads fit for the load?
    Nic,
    /// Does TCP run out of buffer?
    Tcp,
    /// What did the short trace see?
    Trace,
}

impl TriageStep {
    /// All steps, in the order of the flow.
    pub const ALL: [Self; 6] = [Self::Io, Self::Cpu, Self::Irq, Self::Nic, Self::Tcp, Self::Trace];

    /// The question of the step.
    pub fn question(self) -> &'static str {
        match self {
            Self::Io => "Do tasks wait for disks?",
            Self::Cpu => "Is a CPU short of time?",
            Self::Irq => "Are interrupts hot, or all on one CPU?",
            Self::Nic => "Do the NIC's queues or offloads fall short?",
            Self::Tcp => "Does TCP run out of buffer?",
            Self::Trace => "Did packets stall while tracing?",
        }
    }
}

/// How a rule, or a step, is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Checked, and nothing is wrong.
    Ok,
    /// It cannot be determined.
    Unknown,
    /// Something was found.
    Finding,
}

/// A number that a finding is based on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Number {
    /// What it counts or measures.
    pub what: String,
    /// The number.
    pub value: f64,
    /// Its unit, such as `%` or `/s`.
    pub unit: &'static str,
    /// The threshold that it crossed; `None`: it is for information.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// The file or request that it comes from.
    pub source: String,
}

/// Something that is wrong, and the rule that found it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Name of the rule.
    pub rule: &'static str,
    /// Step of the flow.
    pub step: TriageStep,
    /// What the rule has found.
    #[serde(flatten)]
    pub detail: Detail,
}

/// What is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Detail {
    /// The disk, CPU, interface or namespace that it is about.
    pub subject: Option<String>,
    /// How likely it is the cause of a long tail, 1 to 100.
    pub weight: u8,
    /// What was seen, as a sentence.
    pub seen: String,
    /// The numbers behind it.
    pub numbers: Vec<Number>,
    /// Why it matters for tail latency.
    pub why: &'static str,
    /// The next step.
    pub step: Step,
    /// The interface whose queues show whether it helped; `None`: all of them.
    pub iface: Option<String>,
}

impl Detail {
    /// The next step, as a command.
    pub fn next(&self) -> String {
        self.step.command()
    }

    /// The command that undoes it; `None`: it changes nothing.
    pub fn undo(&self) -> Option<String> {
        self.step.undo()
    }

    /// The command that shows whether it helped.
    pub fn confirm(&self) -> String {
        self.step.confirm(self.iface.as_deref())
    }

    /// What happens while it is done, beside its effect.
    pub fn side_effects(&self) -> Vec<&'static str> {
        self.step.remedy().map(Remedy::side_effects).unwrap_or_default()
    }

    /// How to keep it over a reboot.
    pub fn persist(&self) -> Option<String> {
        self.step.remedy()?.persist()
    }
}

/// A [`Detail`] as JSON has it.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    weight: u8,
    seen: &'a str,
    numbers: &'a [Number],
    why: &'a str,
    next: String,
    undo: Option<String>,
    #[serde(skip_serializing_if = "<[Change]>::is_empty")]
    changes: &'a [Change],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    side_effects: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    persist: Option<String>,
    confirm: String,
}

impl Serialize for Detail {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = Written {
            subject: self.subject.as_deref(),
            weight: self.weight,
            seen: &self.seen,
            numbers: &self.numbers,
            why: self.why,
            next: self.next(),
            undo: self.undo(),
            changes: self.step.remedy().map_or(&[], |remedy| &remedy.changes),
            side_effects: self.side_effects(),
            persist: self.persist(),
            confirm: self.confirm(),
        };
        written.serialize(serializer)
    }
}

/// One answer of one rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleAnswer {
    /// Name of the rule.
    pub rule: &'static str,
    /// The answer.
    pub outcome: Outcome,
    /// The answer as text; the reason, if it is unknown.
    pub text: String,
}

/// A step of the flow with its answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepAnswer {
    /// The step.
    pub step: TriageStep,
    /// Its question.
    pub question: &'static str,
    /// The answer to it: a finding, if any rule has one; unknown, if no rule could answer.
    pub outcome: Outcome,
    /// The answers of its rules.
    pub rules: Vec<RuleAnswer>,
}

/// The triage of a host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Triage {
    /// Release of the host's kernel; `None`: unknown.
    pub kernel: Option<String>,
    /// Time between the samples, seconds.
    pub duration_s: f64,
    /// Interfaces that were checked.
    pub ifaces: Vec<String>,
    /// The path taken.
    pub path: Vec<StepAnswer>,
    /// Number of findings.
    pub found: usize,
    /// Number of answers that could not be given.
    pub unknown: usize,
    /// The conclusion as text.
    pub verdict: String,
    /// The findings, highest weight first.
    #[serde(skip)]
    pub findings: Vec<Finding>,
}
