//! Answers of rules, and helpers to build them.

use super::snapshot::{HostSnapshot, Unknown};
use crate::model::{
    finding::{Detail, Number},
    remedy::{
        Remedy, Step,
        knob::{EthtoolKind, Knob},
        value::Value,
    },
};

/// An answer of a rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// Nothing is wrong; what was checked.
    Ok(String),
    /// Something is wrong.
    Finding(Box<Detail>),
    /// There is no answer; the reason.
    Unknown(String),
}

/// What a rule returns: answers, or the reason why it has none.
pub(super) type Answers = Result<Vec<Answer>, Unknown>;

/// The answer that something is wrong.
pub(super) fn found(detail: Detail) -> Answer {
    Answer::Finding(Box::new(detail))
}

pub(super) fn ok(text: impl Into<String>) -> Answer {
    Answer::Ok(text.into())
}

pub(super) fn all_ok(text: impl Into<String>) -> Answers {
    Ok(vec![ok(text)])
}

/// A number that crossed a threshold.
pub(super) fn crossed(
    what: impl Into<String>,
    value: f64,
    unit: &'static str,
    threshold: f64,
    source: impl Into<String>,
) -> Number {
    Number { threshold: Some(threshold), ..plain(what, value, unit, source) }
}

/// A number without a threshold, for context.
pub(super) fn plain(
    what: impl Into<String>,
    value: f64,
    unit: &'static str,
    source: impl Into<String>,
) -> Number {
    Number { what: what.into(), value, unit, threshold: None, source: source.into() }
}

/// Calls `judge` for each interface. An interface without an answer does not hide the others.
pub(super) fn each_interface(
    host: &HostSnapshot,
    ifaces: &[String],
    judge: impl Fn(&HostSnapshot, &str) -> Result<Answer, Unknown>,
) -> Answers {
    if ifaces.is_empty() {
        return Err(Unknown("no interface is up".into()));
    }
    Ok(ifaces
        .iter()
        .map(|iface| match judge(host, iface) {
            Ok(Answer::Ok(text)) => ok(format!("{iface}: {text}")),
            Ok(answer) => answer,
            Err(Unknown(reason)) => Answer::Unknown(format!("{iface}: {reason}")),
        })
        .collect())
}

/// The step that only shows something.
pub(super) fn look(command: impl Into<String>) -> Step {
    Step::Look(command.into())
}

/// The step that changes one setting.
pub(super) fn change(knob: Knob, now: Value, advised: Value) -> Step {
    Step::Change(Remedy::one(knob, now, advised))
}

/// The step that turns a setting of `ethtool` on or off.
pub(super) fn switch(iface: &str, kind: EthtoolKind, name: &'static str, on: bool) -> Step {
    let knob = Knob::Ethtool { iface: iface.to_owned(), kind, name };
    change(knob, Value::switch(!on), Value::switch(on))
}
