//! Answers of rules, and helpers to build them.

use super::snapshot::{HostSnapshot, Unknown};
use crate::model::finding::{Detail, Number};

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

/// A word of a shell command, quoted if necessary.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The `latency-user trace` command, for one interface or for all.
pub(super) fn trace(iface: Option<&str>) -> String {
    let iface = iface.map(|name| format!("--iface {} ", quoted(name))).unwrap_or_default();
    format!("latency-user trace {iface}--duration 30s")
}

/// The `latency-user experiment` command that sets a sysctl.
pub(super) fn experiment(key: &str, value: &str, iface: Option<&str>) -> String {
    let iface = iface.map(|name| format!(" --iface {}", quoted(name))).unwrap_or_default();
    format!(
        "latency-user experiment --set sysctl:{key}={}{iface} --window 30s --rounds 3",
        double_quoted(value)
    )
}

/// `sysctl -w KEY=VALUE`
pub(super) fn sysctl(key: &str, value: &str) -> String {
    format!("sysctl -w {key}={}", double_quoted(value))
}

fn double_quoted(value: &str) -> String {
    if value.contains(char::is_whitespace) { format!("\"{value}\"") } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_a_shell() {
        assert_eq!(quoted("eth0.7"), "eth0.7");
        assert_eq!(quoted("a;rm -rf $x"), "'a;rm -rf $x'");
        assert_eq!(quoted("a'b"), r"'a'\''b'");
        assert_eq!(trace(Some("a b")), "latency-user trace --iface 'a b' --duration 30s");
    }

    #[test]
    fn values_of_several_numbers_are_quoted() {
        assert_eq!(sysctl("a.b", "1 2 3"), "sysctl -w a.b=\"1 2 3\"");
        assert!(experiment("a.b", "1", Some("eth0")).contains("sysctl:a.b=1 --iface eth0 --win"));
    }
}
