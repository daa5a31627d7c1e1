//! Accounts for the time of stalls: which parts count, and in which parts the sampler was overdue.

use std::collections::BTreeMap;

use latency_common::stage::Stage;

use super::culprits::share_of;
use crate::model::stall::{Stall, time::StallTime};

/// A span of time, ns.
pub type Range = (u64, u64);

/// The sampler skipped the first part of each stall: this fraction of the threshold, in recordings
/// without time shares.
const SKIPPED_PART: u64 = 4;

/// A tick later than this fraction of a period is overdue: the clock itself is not that inexact.
const TOLERANCE: u64 = 4;

/// How long claimed times are kept after the last claim, ns: longer than any stall lies open.
const KEPT_NS: u64 = 60_000_000_000;

/// Whether stalls of `stage` are sampled.
pub fn is_sampled(stage: Stage) -> bool {
    matches!(stage, Stage::RxWait | Stage::NetRx | Stage::NapiPoll)
}

/// The time after `tick` in which a clock with this `period` was overdue, if the next thing that is
/// known happened at `until`. A tick at 0 is none.
pub fn overdue(tick: u64, until: u64, period: u64) -> Option<Range> {
    let due = tick.saturating_add(period);
    (tick != 0 && until > due.saturating_add(period / TOLERANCE)).then_some((due, until))
}

/// The length of the part of `ranges`, which do not overlap, that lies in `within`.
pub fn overlap(ranges: &[Range], within: Range) -> u64 {
    let part = |&(start, end): &Range| end.min(within.1).saturating_sub(start.max(within.0));
    ranges.iter().map(part).sum()
}

/// The moments of each CPU that were counted.
#[derive(Default)]
pub struct Claims(BTreeMap<u32, BTreeMap<u64, u64>>);

impl Claims {
    /// Claims a span of `cpu` and returns the parts of it that nothing else had claimed.
    pub fn claim(&mut self, cpu: u32, (start, end): Range) -> Vec<Range> {
        let claimed = self.0.entry(cpu).or_default();
        claimed.retain(|_, known_end| known_end.saturating_add(KEPT_NS) >= start);
        let (mut at, mut new) = (start, Vec::new());
        for (&known_start, &known_end) in claimed.iter() {
            if known_end <= at || known_start >= end {
                continue;
            }
            if known_start > at {
                new.push((at, known_start));
            }
            at = known_end;
        }
        if at < end {
            new.push((at, end));
        }
        claimed.extend(new.iter().copied());
        new
    }
}

/// Sets the time shares of a stall whose recording does not have them, from the number of samples.
///
/// The clock ticked every `1 / hz` from a known part of the threshold on: time without a tick that
/// no schedule of such ticks explains is time in which it was overdue. What may be between two
/// ticks stays unexplained. Returns whether anything was set.
pub fn estimate(stall: &mut Stall, hz: u64, threshold_ns: u64) -> bool {
    if stall.unsampled_ns.is_some() || hz == 0 || !is_sampled(stall.stage) {
        return false;
    }
    let period = 1_000_000_000 / hz;
    let explained = stall.samples.saturating_add(1).saturating_mul(period);
    let unsampled =
        stall.duration_ns.saturating_sub(threshold_ns / SKIPPED_PART).saturating_sub(explained);
    stall.unsampled_ns = Some(unsampled);
    stall.sampled_ns =
        Some(stall.samples.saturating_mul(period).min(stall.duration_ns - unsampled));
    set_shares(stall);
    true
}

/// Whether a stall is the hypervisor's: it took the CPU in the interval in which the stall ended, and
/// without the time in which the CPU did not run the stall would not have reached the threshold.
///
/// The CPU may have been taken right after the last tick: up to a period before the clock was
/// overdue. `hz` is that of the clock.
pub fn is_stolen(stall: &Stall, hz: u64, threshold_ns: u64) -> bool {
    let (Some(steal), Some(unsampled)) = (stall.steal_ns, stall.unsampled_ns) else { return false };
    if steal == 0 || unsampled == 0 || hz == 0 {
        return false;
    }
    let taken = unsampled.saturating_add(1_000_000_000 / hz);
    stall.duration_ns.saturating_sub(taken) < threshold_ns
}

/// Turns the overdue time of a stall into unexplained time.
pub fn forget_overdue(stall: &mut Stall) {
    stall.unsampled_ns = stall.unsampled_ns.map(|_| 0);
}

fn set_shares(stall: &mut Stall) {
    let (samples, time) = (stall.samples, stall.time());
    for culprit in &mut stall.culprits {
        culprit.share = share_of(culprit.samples, samples, &time);
    }
}

/// The time of a recording's stalls that has no times of its own: each moment once.
pub fn times(stalls: &[Stall]) -> StallTime {
    let mut sum = StallTime::default();
    let mut claims = Claims::default();
    let mut longest: Vec<&Stall> = stalls.iter().filter(|stall| is_sampled(stall.stage)).collect();
    longest.sort_by_key(|stall| std::cmp::Reverse(stall.duration_ns));
    for stall in longest {
        let new = claims.claim(stall.cpu, (stall.start_ns, stall.end_ns));
        sum.add(&part(&stall.time(), overlap(&new, (0, u64::MAX))));
    }
    sum
}

/// The time of a stall, reduced to `new_ns` of it.
fn part(time: &StallTime, new_ns: u64) -> StallTime {
    let of = |ns: u64| match time.stalled_ns {
        0 => 0,
        all => (u128::from(ns) * u128::from(new_ns) / u128::from(all)) as u64,
    };
    StallTime {
        stalls: u64::from(new_ns * 2 > time.stalled_ns),
        stalled_ns: new_ns,
        unsampled_ns: of(time.unsampled_ns),
        sampled_ns: of(time.sampled_ns),
        irq_ns: of(time.irq_ns),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clock_that_ticks_in_time_is_not_overdue() {
        assert_eq!(overdue(100, 1100, 1000), None);
        assert_eq!(overdue(100, 1350, 1000), None);
        assert_eq!(overdue(100, 9100, 1000), Some((1100, 9100)));
        assert_eq!(overdue(0, 9100, 1000), None);
    }

    #[test]
    fn only_what_the_hypervisor_took_is_stolen() {
        let mut stall: Stall = serde_json::from_str(
            r#"{"at": "", "start_ns": 0, "end_ns": 8000000, "stage": "net_rx", "cpu": 0,
                "duration_ns": 8000000, "samples": 1, "unsampled_ns": 6500000, "steal_ns": 10000000}"#,
        )
        .unwrap();
        assert!(is_stolen(&stall, 997, 1_000_000));
        assert!(!is_stolen(&stall, 997, 100_000));
        stall.unsampled_ns = Some(5_000_000);
        assert!(!is_stolen(&stall, 997, 1_000_000));
        // Interrupts may have been off.
        (stall.unsampled_ns, stall.steal_ns) = (Some(7_000_000), Some(0));
        assert!(!is_stolen(&stall, 997, 1_000_000));
        stall.steal_ns = None;
        assert!(!is_stolen(&stall, 997, 1_000_000));
    }

    #[test]
    fn each_moment_of_a_cpu_is_claimed_once() {
        let mut claims = Claims::default();
        assert_eq!(claims.claim(0, (100, 200)), [(100, 200)]);
        assert_eq!(claims.claim(0, (150, 170)), []);
        assert_eq!(claims.claim(1, (150, 170)), [(150, 170)]);
        assert_eq!(claims.claim(0, (50, 250)), [(50, 100), (200, 250)]);
    }

    proptest! {
        #[test]
        fn claims_cover_what_a_set_of_moments_covers(
            ranges in prop::collection::vec((0..60_u64, 0..20_u64), 0..30),
        ) {
            let mut claims = Claims::default();
            let mut moments = std::collections::BTreeSet::new();
            for (start, length) in ranges {
                let new = claims.claim(3, (start, start + length));
                let before = moments.len();
                moments.extend(start..start + length);
                prop_assert_eq!(overlap(&new, (0, u64::MAX)), (moments.len() - before) as u64);
            }
        }
    }
}
