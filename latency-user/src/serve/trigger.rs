//! Triggers: what makes the daemon keep the minutes before and after.

use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use crate::measure::sink::Measured;

/// A condition, and for how long it must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// What must be the case in an interval.
    pub condition: Condition,
    /// In all intervals for this time; zero: in one.
    pub lasting: Duration,
}

/// A condition on an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A stall of at least this length.
    Stall(Duration),
    /// At least so many stalls in the last intervals of this length.
    Stalls(u64, Duration),
    /// A call of `tcp_collapse` of at least this length.
    Collapse(Duration),
    /// Events were lost, or stalls were not reported.
    Loss,
    /// The ledger does not balance.
    Ledger,
}

impl Trigger {
    /// Its kind, as in names of recordings and in metrics.
    pub fn kind(&self) -> &'static str {
        match self.condition {
            Condition::Stall(_) => "stall",
            Condition::Stalls(..) => "stalls",
            Condition::Collapse(_) => "collapse",
            Condition::Loss => "loss",
            Condition::Ledger => "ledger",
        }
    }
}

const FORMS: &str = "stall>=20ms, stalls>=50/10s, collapse>=5ms, loss or ledger, each with \
                     `for 30s` behind it or not";

impl FromStr for Trigger {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("trigger {text:?} has none of the forms {FORMS}");
        let (condition, lasting) = match text.split_once(" for ") {
            Some((condition, lasting)) => (condition, duration(lasting)?),
            None => (text, Duration::ZERO),
        };
        let condition = match condition.trim().split_once(">=") {
            None if condition.trim() == "loss" => Condition::Loss,
            None if condition.trim() == "ledger" => Condition::Ledger,
            Some((kind, limit)) => match (kind.trim(), limit.split_once('/')) {
                ("stall", None) => Condition::Stall(duration(limit)?),
                ("collapse", None) => Condition::Collapse(duration(limit)?),
                ("stalls", Some((number, length))) => {
                    let number = number.trim().parse().map_err(|_| wrong())?;
                    Condition::Stalls(number, duration(length)?)
                }
                _ => return Err(wrong()),
            },
            None => return Err(wrong()),
        };
        match condition {
            Condition::Stalls(0, _) => Err(format!("trigger {text:?} would always be true")),
            Condition::Stalls(_, Duration::ZERO) => Err(wrong()),
            _ => Ok(Self { condition, lasting }),
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim())
        .map_err(|error| format!("{:?} is not a duration such as 20ms: {error}", text.trim()))
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = humantime::format_duration;
        match self.condition {
            Condition::Stall(least) => write!(f, "stall>={}", time(least)),
            Condition::Stalls(least, length) => write!(f, "stalls>={least}/{}", time(length)),
            Condition::Collapse(least) => write!(f, "collapse>={}", time(least)),
            Condition::Loss => f.write_str("loss"),
            Condition::Ledger => f.write_str("ledger"),
        }?;
        if self.lasting > Duration::ZERO {
            write!(f, " for {}", time(self.lasting))?;
        }
        Ok(())
    }
}

/// A trigger with what it must remember.
#[derive(Debug)]
pub struct Armed {
    /// The trigger.
    pub trigger: Trigger,
    /// Since when its condition holds.
    holds_since: Option<Instant>,
    /// When it fired last.
    fired: Option<Instant>,
    /// Stalls by interval, with its end and length.
    stalls: VecDeque<(Instant, Duration, u64)>,
    /// Losses before the last interval.
    lost: Option<u64>,
}

impl Armed {
    /// Armed from now on.
    pub fn new(trigger: Trigger) -> Self {
        Self { trigger, holds_since: None, fired: None, stalls: VecDeque::new(), lost: None }
    }

    /// Why it fires, unless it has within the last `pause`.
    pub fn check(&mut self, interval: &Measured<'_>, pause: Duration) -> Option<String> {
        let now = Instant::now();
        let Some(reason) = self.holds(interval, now) else {
            self.holds_since = None;
            return None;
        };
        let since = *self.holds_since.get_or_insert(now);
        let length = now - since + interval.all.duration;
        let is_lasting = self.trigger.lasting.is_zero() || length >= self.trigger.lasting;
        if !is_lasting || self.fired.is_some_and(|fired| now - fired < pause) {
            return None;
        }
        self.fired = Some(now);
        Some(reason)
    }

    fn holds(&mut self, interval: &Measured<'_>, now: Instant) -> Option<String> {
        let batch = &interval.all.batch;
        match self.trigger.condition {
            Condition::Stall(least) => {
                let longest = batch.stalls.iter().max_by_key(|stall| stall.duration_ns)?;
                let length = Duration::from_nanos(longest.duration_ns);
                let text =
                    || format!("{} of {length:.1?} on CPU {}", longest.stage.name(), longest.cpu);
                (length >= least).then(text)
            }
            Condition::Stalls(least, length) => {
                let series = interval.all.series.iter();
                let stalls = series.map(|series| series.distribution.over_threshold).sum();
                self.stalls.push_back((now, interval.all.duration, stalls));
                // An interval counts that began within the time.
                while self
                    .stalls
                    .front()
                    .is_some_and(|(end, took, _)| now - *end + *took > length.max(*took))
                {
                    self.stalls.pop_front();
                }
                let sum: u64 = self.stalls.iter().map(|(.., stalls)| stalls).sum();
                (sum >= least).then(|| format!("{sum} stalls within {length:.0?}"))
            }
            Condition::Collapse(least) => {
                let slowest = batch.collapses.iter().map(|collapse| collapse.duration_ns).max()?;
                let length = Duration::from_nanos(slowest);
                (length >= least).then(|| format!("tcp_collapse took {length:.1?}"))
            }
            Condition::Loss => {
                let ledger = &interval.so_far?.ledger;
                let lost: u64 = ledger
                    .stages
                    .iter()
                    .map(|stage| {
                        let reports = stage.records.dropped + stage.records.limited;
                        stage.unmatched_start + stage.backwards + stage.ring_dropped + reports
                    })
                    .sum();
                let before = self.lost.replace(lost)?;
                (lost > before)
                    .then(|| format!("{} events lost or stalls not reported", lost - before))
            }
            Condition::Ledger => {
                let balanced = interval.so_far?.ledger.balanced;
                (!balanced).then(|| "the ledger does not balance".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_and_shown() {
        for text in
            ["stall>=20ms", "stalls>=50/10s", "collapse>=5ms for 30s", "loss", "ledger for 1m"]
        {
            assert_eq!(text.parse::<Trigger>().unwrap().to_string(), text);
        }
        let spaced: Trigger = "stall >= 1s 5ms  for  2m".replace("  ", " ").parse().unwrap();
        assert_eq!(spaced.to_string(), "stall>=1s 5ms for 2m");
        for text in [
            "",
            "stall",
            "stall>20ms",
            "stall>=20",
            "stalls>=5",
            "stalls>=0/1s",
            "x>=1s",
            "stalls>=-1/1s",
            "stall>=1s/2s",
            "loss for",
            "stalls>=5/0s",
        ] {
            assert!(text.parse::<Trigger>().is_err(), "{text}");
        }
    }
}
