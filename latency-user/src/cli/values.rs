//! Values on the command line: durations, stages, probe methods, formats.

use std::{path::Path, time::Duration};

use clap::ValueEnum;
use clap_complete::CompletionCandidate;
use latency_common::{bucket::MAX_VALUE, stage::Stage};

use crate::{
    host::net::interfaces,
    kernel::probes::selection::ProbeChoice,
    model::{
        failure::Failure,
        run::{SampleClock, SampleWhen, Transport},
        unit::Unit,
    },
};

/// Longest plausible duration of a run; a longer one is taken for a typo.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Shortest time between two snapshots.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// The permissions of files with measured data, as an argument.
pub(crate) const PRIVATE: &str = "600";

/// Reads permissions: three octal digits, of which the first lets the owner read and write.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && mode & 0o600 == 0o600 => Ok(mode),
        _ => Err("expected octal permissions with those of the owner, such as 640".into()),
    }
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs: one object a line
    Json,
}

/// Unit of another program's values, as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ValueUnit {
    /// Nanoseconds
    Ns,
    /// Microseconds
    Us,
    /// Milliseconds
    Ms,
    /// Seconds
    S,
}

impl From<ValueUnit> for Unit {
    fn from(unit: ValueUnit) -> Self {
        match unit {
            ValueUnit::Ns => Self::Ns,
            ValueUnit::Us => Self::Us,
            ValueUnit::Ms => Self::Ms,
            ValueUnit::S => Self::S,
        }
    }
}

/// What a comparison takes as one unit, or the unit of another program's values, as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompareUnit {
    /// Each recording counts once
    Recording,
    /// Each host counts once; hosts on both sides are compared with themselves
    Host,
    /// Values in nanoseconds
    Ns,
    /// Values in microseconds
    Us,
    /// Values in milliseconds
    Ms,
    /// Values in seconds
    S,
}

impl CompareUnit {
    /// The unit of values; `None`: it is no such unit.
    pub fn of_values(self) -> Option<Unit> {
        match self {
            Self::Recording | Self::Host => None,
            Self::Ns => Some(Unit::Ns),
            Self::Us => Some(Unit::Us),
            Self::Ms => Some(Unit::Ms),
            Self::S => Some(Unit::S),
        }
    }
}

/// Transport of events, as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TransportArg {
    /// Counted in the kernel; loses nothing at any rate
    Maps,
    /// Sent individually and counted in user space; events that do not fit are counted as dropped
    Ring,
    /// Both, compared at the end
    Both,
}

impl From<TransportArg> for Transport {
    fn from(transport: TransportArg) -> Self {
        match transport {
            TransportArg::Maps => Self::Maps,
            TransportArg::Ring => Self::Ring,
            TransportArg::Both => Self::Both,
        }
    }
}

/// Clock of stack samples, as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SampleClockArg {
    /// Time, by a timer; not while interrupts are off
    Time,
    /// Cycles of the CPU, by an interrupt that on most machines cannot be masked: code with
    /// interrupts off has stacks too
    Cycles,
}

impl From<SampleClockArg> for SampleClock {
    fn from(clock: SampleClockArg) -> Self {
        match clock {
            SampleClockArg::Time => Self::Time,
            SampleClockArg::Cycles => Self::Cycles,
        }
    }
}

/// When a CPU has the clock of stack samples, as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SampleWhenArg {
    /// Always: every stall has stacks, and idle CPUs are woken
    Always,
    /// For a minute after each stall: CPUs that do not stall have a slow one, at 47 Hz, which most
    /// first stalls end before
    Stalled,
}

impl From<SampleWhenArg> for SampleWhen {
    fn from(when: SampleWhenArg) -> Self {
        match when {
            SampleWhenArg::Always => Self::Always,
            SampleWhenArg::Stalled => Self::Stalled,
        }
    }
}

/// Reads a duration such as `500us`, `10s`, `1m 30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 500us, 10s or 2m"))?;
    if duration.is_zero() {
        return Err("must be longer than 0".into());
    }
    if duration > LONGEST {
        return Err("longer than a year".into());
    }
    Ok(duration)
}

/// Reads the time between snapshots.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < SHORTEST_INTERVAL {
        return Err(format!("must be at least {SHORTEST_INTERVAL:?}"));
    }
    Ok(interval)
}

/// Reads a share such as `1%` or `0.5%`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    match percent {
        Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err("not a share above 0% and up to 100%; write it like 1% or 0.5%".into()),
    }
}

/// Reads a threshold: at most the largest value of the last bucket.
pub(crate) fn threshold(text: &str) -> Result<Duration, String> {
    let threshold = duration(text)?;
    if threshold > Duration::from_nanos(MAX_VALUE) {
        return Err(format!("must be at most {:?}", Duration::from_nanos(MAX_VALUE)));
    }
    Ok(threshold)
}

/// Reads the name of a stage.
pub(crate) fn stage(text: &str) -> Result<Stage, String> {
    Stage::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = Stage::ALL.into_iter().map(Stage::name).collect();
        format!("no such stage; there are {}", names.join(", "))
    })
}

/// The interfaces of this network namespace, for the shell to complete.
pub(crate) fn interfaces() -> Vec<CompletionCandidate> {
    let interfaces = interfaces::list(Path::new("/")).unwrap_or_default();
    interfaces.into_iter().map(|interface| CompletionCandidate::new(interface.name)).collect()
}

/// Checks that this network namespace has every interface in `asked`.
///
/// # Errors
///
/// When one does not exist; lists those that do.
pub(crate) fn check_interfaces(asked: &[String]) -> Result<(), Failure> {
    if asked.is_empty() {
        return Ok(());
    }
    let known = interfaces::list(Path::new("/"))
        .map_err(|error| Failure::new(format!("interfaces cannot be listed: {error:#}")))?;
    match asked.iter().find(|name| !known.iter().any(|interface| interface.name == **name)) {
        None => Ok(()),
        Some(unknown) => {
            let names: Vec<&str> = known.iter().map(|interface| interface.name.as_str()).collect();
            Err(Failure::new(format!("no interface {unknown:?} in this network namespace"))
                .hint(format!("there are: {}", names.join(", "))))
        }
    }
}

/// Reads `auto` or the name of a method.
pub(crate) fn choice(text: &str) -> Result<ProbeChoice, String> {
    if text == "auto" {
        return Ok(ProbeChoice::Auto);
    }
    text.parse().map(ProbeChoice::Forced).map_err(|error| format!("{error}, or auto"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_or_refused_with_a_reason() {
        assert_eq!(duration("500us"), Ok(Duration::from_micros(500)));
        for nonsense in ["0s", "-1s", "ten", "", "10", "99999999d", "18446744073709551616s"] {
            assert!(duration(nonsense).is_err(), "{nonsense}");
        }
        assert!(interval("1ms").is_err() && interval("10ms").is_ok());
        assert!(threshold("69s").is_err() && threshold("68s").is_ok());
    }

    #[test]
    fn defaults_are_written_as_people_write_them() {
        let collapse = crate::collect::config::DEFAULT_COLLAPSE_THRESHOLD_NS;
        let stall = crate::model::run::DEFAULT_THRESHOLD_NS;
        for (text, ns) in [("1ms", stall), ("500us", collapse)] {
            assert_eq!(threshold(text), Ok(Duration::from_nanos(ns)));
        }
    }

    #[test]
    fn stages_and_methods_have_names() {
        assert_eq!(stage("tcp_collapse"), Ok(Stage::TcpCollapse));
        assert!(stage("tcp").unwrap_err().contains("rx_wait"));
        assert_eq!(choice("auto"), Ok(ProbeChoice::Auto));
        assert!(choice("magic").is_err());
    }
}
