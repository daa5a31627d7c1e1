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

/// Allowed stalls of a window with the change, in multiples of the worst stretch of equal length
/// without it.
const TOLERATED: u64 = 10;

/// Fewer stalls than this never end a window.
const LEAST_STALLS: u64 = 10;

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

/// How stalls came in the windows without the change: their number since the start of a window, at
/// the end of each interval.
#[derive(Clone, Debug, Default)]
pub struct Stretches(Vec<Vec<(Duration, u64)>>);

impl Stretches {
    /// The most stalls in any stretch of this length, scaled up if no window is as long.
    fn worst(&self, length: Duration) -> u64 {
        let of_window = |window: &Vec<(Duration, u64)>| -> u64 {
            let starts = std::iter::once((Duration::ZERO, 0)).chain(window.iter().copied());
            let in_window = starts.filter_map(|(start, before)| {
                let end = window.iter().find(|(end, _)| *end >= start + length)?;
                Some(end.1 - before)
            });
            let whole = window.last().map_or(0, |&(end, stalls)| {
                let times = length.as_secs_f64() / end.as_secs_f64().max(1e-9);
                (stalls as f64 * times.max(1.0)).ceil() as u64
            });
            in_window.max().unwrap_or(whole)
        };
        self.0.iter().map(of_window).max().unwrap_or(0)
    }

    /// A sink that watches a window without the change.
    pub(super) fn watch(&mut self) -> StretchSink<'_> {
        self.0.push(Vec::new());
        StretchSink(self)
    }
}

/// Watches a window without the change.
pub(super) struct StretchSink<'a>(&'a mut Stretches);

impl Sink for StretchSink<'_> {
    fn interval(&mut self, interval: &Measured<'_>) -> Result<Option<Stop>> {
        let stalls = interval.totals.net_rx().over_threshold;
        if let Some(window) = self.0.0.last_mut() {
            window.push((interval.elapsed, stalls));
        }
        Ok(None)
    }
}

/// Ends a window with the change as soon as its results are too bad, or its link is lost.
pub(super) struct AbortRule<'a> {
    /// The limit that was asked for; `None`: the default, on the number of stalls.
    pub(super) limit: Option<Limit>,
    /// Inode of the network namespace of the interfaces.
    pub(super) netns: u32,
    /// Interfaces that must keep their links.
    pub(super) ifaces: &'a [String],
    /// The windows without the change.
    pub(super) without: &'a Stretches,
}

impl Sink for AbortRule<'_> {
    fn interval(&mut self, interval: &Measured<'_>) -> Result<Option<Stop>> {
        let net_rx = interval.totals.net_rx();
        let note = match reason(self.limit, &net_rx, interval.elapsed, self.without) {
            Some(note) => Some(note),
            None => {
                guards::lost_link(self.netns, self.ifaces)?.map(|iface| Note::LinkLost { iface })
            }
        };
        Ok(note.map(Stop::Aborted))
    }

    fn last_interval(&mut self, _: &Measured<'_>) -> Result<()> {
        Ok(())
    }
}

/// Why to end a window with this distribution of `net_rx`; `None`: continue.
fn reason(
    limit: Option<Limit>,
    net_rx: &Distribution,
    elapsed: Duration,
    without: &Stretches,
) -> Option<Note> {
    if let Some(limit) = limit {
        if net_rx.count() < LEAST_EVENTS {
            return None;
        }
        let reached_ns = net_rx.quantile(&net_rx.histogram(), limit.quantile);
        let is_above = u128::from(reached_ns) > limit.limit.as_nanos();
        return is_above.then(|| Note::QuantileAboveLimit { rule: limit.to_string(), reached_ns });
    }
    let (stalls, worst) = (net_rx.over_threshold, without.worst(elapsed));
    let per_second = |stalls: u64| stalls as f64 / elapsed.as_secs_f64().max(1e-3);
    (stalls >= LEAST_STALLS && stalls > TOLERATED * worst.max(1)).then(|| {
        Note::StallRateAboveLimit {
            per_second: per_second(stalls),
            baseline_per_second: per_second(worst),
        }
    })
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
        let (second, none) = (Duration::from_secs(1), Stretches::default());
        assert_eq!(reason(limit, &events(9), second, &none), None);
        let note = reason(limit, &events(11), second, &none).unwrap();
        assert_eq!(note.code(), "quantile-above-limit");
        assert!(note.to_string().contains("p99.9>5ms"), "{note}");
        assert_eq!(reason(limit, &Distribution::default(), second, &none), None);
    }

    #[test]
    fn ten_times_the_worst_stretch_ends_a_window() {
        let second = Duration::from_secs;
        // A burst of 8 stalls in the third second, and 2 others.
        let window = [(1, 1), (2, 1), (3, 9), (4, 9), (5, 10)];
        let without = Stretches(vec![window.map(|(at, stalls)| (second(at), stalls)).to_vec()]);
        assert_eq!((without.worst(second(1)), without.worst(second(3))), (8, 9));
        assert_eq!((without.worst(second(5)), without.worst(second(10))), (10, 20));
        assert_eq!(reason(None, &events(80), second(1), &without), None);
        assert!(reason(None, &events(81), second(1), &without).is_some());
        assert_eq!(reason(None, &events(90), second(3), &without), None);
        let none = Stretches::default();
        assert_eq!(reason(None, &events(9), Duration::ZERO, &none), None);
        assert!(reason(None, &events(11), second(1), &none).is_some());
    }
}
