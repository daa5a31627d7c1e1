//! When a window ends early: what it has measured so far is too bad to go on.

use std::{fmt, str::FromStr, time::Duration};

use latency_common::stage::Stage;

use crate::model::{distribution::Distribution, series::Series};

/// A window with the change may have so many times the stalls of the worst one without.
const TOLERATED: f64 = 10.0;

/// Fewer stalls than this are no reason to end anything.
const LEAST_STALLS: f64 = 10.0;

/// Fewer durations than this have no quantile worth the name.
const LEAST_CALLS: u64 = 100;

/// A quantile of `net_rx` above a limit, such as `p99.9>5ms`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    quantile: f64,
    limit: Duration,
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let nonsense = || format!("{text:?} is not written like p99.9>5ms");
        let (quantile, limit) = text.split_once('>').ok_or_else(nonsense)?;
        let percent = quantile.trim().strip_prefix('p').ok_or_else(nonsense)?;
        let percent: f64 = percent.parse().map_err(|_| nonsense())?;
        if !(percent > 0.0 && percent < 100.0) {
            return Err(format!("p{percent} is not between p0 and p100"));
        }
        let limit = humantime::parse_duration(limit.trim()).map_err(|_| nonsense())?;
        Ok(Self { quantile: percent / 100.0, limit })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = (self.quantile * 1e8).round() / 1e6;
        write!(f, "p{percent}>{}", humantime::format_duration(self.limit))
    }
}

/// Why to end a window whose durations so far are `series`; `None`: go on. `baseline` is the most
/// stalls per second of a window without the change.
pub fn reason(
    limit: Option<Limit>,
    series: &[(Series, Distribution)],
    elapsed: Duration,
    baseline: f64,
) -> Option<String> {
    let mut sum = Distribution::default();
    series
        .iter()
        .filter(|(series, _)| series.stage == Stage::NetRx)
        .for_each(|(_, distribution)| sum.add(distribution));
    if let Some(limit) = limit {
        if sum.count() < LEAST_CALLS {
            return None;
        }
        let quantile = sum.histogram().value_at_quantile(limit.quantile).min(sum.max_ns);
        let is_above = u128::from(quantile) > limit.limit.as_nanos();
        let reached = humantime::format_duration(Duration::from_nanos(quantile));
        return is_above.then(|| format!("{limit}: it reached {reached}"));
    }
    let stalls = sum.over_threshold as f64;
    // The rate of a window that has just begun says nothing: at least a second counts.
    let rate = stalls / elapsed.as_secs_f64().max(1.0);
    (stalls >= LEAST_STALLS && rate > TOLERATED * baseline.max(1.0))
        .then(|| format!("{rate:.1} stalls a second, {baseline:.1} without the change"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::series::Owner;

    fn series(stalls: u64) -> Vec<(Series, Distribution)> {
        let mut distribution = Distribution::default();
        for at in 0..10_000 {
            let ns = if at < stalls { 6_000_000 } else { 2_000 };
            distribution.record(ns, 1_000_000, 0);
        }
        vec![(Series { stage: Stage::NetRx, owner: Owner::Cpu(0) }, distribution)]
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
        assert_eq!(reason(limit, &series(9), second, 0.0), None);
        assert!(reason(limit, &series(11), second, 0.0).unwrap().contains("p99.9>5ms"));
        assert_eq!(reason(limit, &[], second, 0.0), None);
    }

    #[test]
    fn ten_times_the_stalls_end_a_window() {
        let ten = Duration::from_secs(10);
        assert_eq!(reason(None, &series(99), ten, 0.0), None);
        assert!(reason(None, &series(101), ten, 0.0).is_some());
        assert_eq!(reason(None, &series(101), ten, 2.0), None);
        assert_eq!(reason(None, &series(9), Duration::ZERO, 0.0), None);
    }
}
