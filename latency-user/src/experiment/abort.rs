//! Rules that end a window early because its results so far are too bad.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::Result;

use super::guards;
use crate::{
    measure::{
        pacing::Stop,
        sink::{Measured, Sink},
    },
    model::{distribution::Distribution, note::Note},
};

/// Allowed stall rate of a window with the change, in multiples of the worst window without.
const TOLERATED: f64 = 10.0;

/// Fewer stalls than this never end a window.
const LEAST_STALLS: f64 = 10.0;

/// Quantiles of fewer events than this are not meaningful.
const LEAST_EVENTS: u64 = 100;

/// A quantile of `net_rx` above a limit, such as `p99.9>5ms`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    quantile: f64,
    limit: Duration,
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("{text:?} is not written like p99.9>5ms");
        let (quantile, limit) = text.split_once('>').ok_or_else(malformed)?;
        let percent = quantile.trim().strip_prefix('p').ok_or_else(malformed)?;
        let percent: f64 = percent.parse().map_err(|_| malformed())?;
        if !(percent > 0.0 && percent < 100.0) {
            return Err(format!("p{percent} is not between p0 and p100"));
        }
        let limit = humantime::parse_duration(limit.trim()).map_err(|_| malformed())?;
        Ok(Self { quantile: percent / 100.0, limit })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = (self.quantile * 1e8).round() / 1e6;
        write!(f, "p{percent}>{}", humantime::format_duration(self.limit))
    }
}

/// Ends a window with the change as soon as its results are too bad, or its link is lost.
pub(super) struct AbortRule {
    /// The limit that was asked for; `None`: the default, on the stall rate.
    pub(super) limit: Option<Limit>,
    /// Inode of the network namespace of the interfaces.
    pub(super) netns: u32,
    /// Interfaces that must keep their links.
    pub(super) ifaces: Vec<String>,
    /// The highest stall rate, per second, of a window without the change.
    pub(super) baseline: f64,
}

impl Sink for AbortRule {
    fn interval(&mut self, interval: &Measured<'_>) -> Result<Option<Stop>> {
        let net_rx = interval.totals.net_rx();
        let note = match reason(self.limit, &net_rx, interval.elapsed, self.baseline) {
            Some(note) => Some(note),
            None => {
                guards::lost_link(self.netns, &self.ifaces)?.map(|iface| Note::LinkLost { iface })
            }
        };
        Ok(note.map(Stop::Aborted))
    }

    fn last_interval(&mut self, _: &Measured<'_>) -> Result<()> {
        Ok(())
    }
}

/// Why to end a window with this distribution of `net_rx`; `None`: continue. `baseline` is the
/// highest stall rate, per second, of a window without the change.
fn reason(
    limit: Option<Limit>,
    net_rx: &Distribution,
    elapsed: Duration,
    baseline: f64,
) -> Option<Note> {
    if let Some(limit) = limit {
        if net_rx.count() < LEAST_EVENTS {
            return None;
        }
        let reached_ns = net_rx.quantile(&net_rx.histogram(), limit.quantile);
        let is_above = u128::from(reached_ns) > limit.limit.as_nanos();
        return is_above.then(|| Note::QuantileAboveLimit { rule: limit.to_string(), reached_ns });
    }
    let stalls = net_rx.over_threshold as f64;
    // The rate of a window that has just started is not meaningful: count at least a second.
    let per_second = stalls / elapsed.as_secs_f64().max(1.0);
    (stalls >= LEAST_STALLS && per_second > TOLERATED * baseline.max(1.0))
        .then_some(Note::StallRateAboveLimit { per_second, baseline_per_second: baseline })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(stalls: u64) -> Distribution {
        let mut distribution = Distribution::default();
        for at in 0..10_000 {
            let ns = if at < stalls { 6_000_000 } else { 2_000 };
            distribution.record(ns, 1_000_000, 0);
        }
        distribution
    }

    #[test]
    fn limits_are_read_or_refused() {
        let limit: Limit = "p99.9>5ms".parse().unwrap();
        assert_eq!(limit.to_string(), "p99.9>5ms");
        for text in ["", "p99.9", "99>5ms", "p0>1s", "p100>1s", "px>1s", "p99>x", "p99<1s"] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_quantile_above_its_limit_ends_a_window() {
        let limit = "p99.9>5ms".parse().ok();
        let second = Duration::from_secs(1);
        assert_eq!(reason(limit, &events(9), second, 0.0), None);
        let note = reason(limit, &events(11), second, 0.0).unwrap();
        assert_eq!(note.code(), "quantile-above-limit");
        assert!(note.to_string().contains("p99.9>5ms"), "{note}");
        assert_eq!(reason(limit, &Distribution::default(), second, 0.0), None);
    }

    #[test]
    fn ten_times_the_stalls_end_a_window() {
        let ten = Duration::from_secs(10);
        assert_eq!(reason(None, &events(99), ten, 0.0), None);
        assert!(reason(None, &events(101), ten, 0.0).is_some());
        assert_eq!(reason(None, &events(101), ten, 2.0), None);
        assert_eq!(reason(None, &events(9), Duration::ZERO, 0.0), None);
    }
}
