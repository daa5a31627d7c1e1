//! Accounts for the time of stalls: which parts count, and in which parts the sampler was overdue.

use std::collections::BTreeMap;

use latency_common::stage::Stage;

use super::culprits::share_of;
use crate::model::{
    run::SampleClock,
    stall::{Stall, time::StallTime},
};

/// A span of time, ns.
pub type Range = (u64, u64);

/// The sampler skipped the first part of each stall: this fraction of the threshold, in recordings
/// without time shares.
const SKIPPED_PART: u64 = 4;

/// A tick of a timer later than this fraction of a period is overdue: the clock itself is not that
/// inexact.
const TOLERANCE: u64 = 4;

/// Ticks that count cycles are overdue after this many periods: a CPU may become that much slower
/// before perf has adapted.
const CYCLE_PERIODS: u64 = 4;

/// How long claimed times are kept after the last claim, ns: longer than any stall lies open.
const KEPT_NS: u64 = 60_000_000_000;

/// Whether stalls of `stage` are sampled.
pub fn is_sampled(stage: Stage) -> bool {
    matches!(stage, Stage::RxWait | Stage::NetRx | Stage::NapiPoll)
}

/// The clock by which stalls are sampled.
#[derive(Clone, Copy, Debug, Default)]
pub struct TickClock {
    period_ns: u64,
    counts: SampleClock,
}

impl TickClock {
    /// A clock that ticks `hz` times a second; 0: never.
    pub fn new(hz: u64, counts: SampleClock) -> Self {
        Self { period_ns: 1_000_000_000_u64.checked_div(hz).unwrap_or(0), counts }
    }

    /// Whether it never ticks.
    pub fn is_off(&self) -> bool {
        self.period_ns == 0
    }

    /// The time in which it was overdue, in a span that has been in progress since `since_ns`, if
    /// it had ticked at `tick_ns` and the next thing that is known happened at `until_ns`. A tick
    /// at 0 is none.
    pub fn overdue(&self, tick_ns: u64, since_ns: u64, until_ns: u64) -> Option<Range> {
        let (from, late) = match self.counts {
            SampleClock::Time => (tick_ns, self.period_ns / TOLERANCE),
            // Before the span, the CPU may have been idle.
            SampleClock::Cycles => {
                (tick_ns.max(since_ns), (CYCLE_PERIODS - 1).saturating_mul(self.period_ns))
            }
        };
        let due = from.saturating_add(self.period_ns);
        let is_overdue = tick_ns != 0 && !self.is_off() && until_ns > due.saturating_add(late);
        is_overdue.then_some((due, until_ns))
    }

    /// The time that a sample at `at_ns` stands for, ns: one period. If the clock was overdue, the
    /// CPU stopped before the tick was due, on average for as long as after it, but not for more
    /// than half the period. Ticks that count cycles may come sooner.
    pub fn weight(&self, tick_ns: u64, since_ns: u64, at_ns: u64) -> u64 {
        let overdue = self.overdue(tick_ns, since_ns, at_ns).map_or(0, |(due, until)| until - due);
        let whole = self.period_ns - overdue.min(self.period_ns / 2);
        match self.counts {
            SampleClock::Time => whole,
            SampleClock::Cycles => whole.min(at_ns.saturating_sub(tick_ns.max(since_ns))),
        }
    }
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
        unclocked_ns: 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clock_that_ticks_in_time_is_not_overdue() {
        let timer = TickClock::new(1_000_000, SampleClock::Time);
        assert_eq!(timer.overdue(100, 50, 1100), None);
        assert_eq!(timer.overdue(100, 50, 1350), None);
        assert_eq!(timer.overdue(100, 50, 9100), Some((1100, 9100)));
        assert_eq!(timer.overdue(0, 50, 9100), None);
        assert_eq!(TickClock::default().overdue(100, 50, 9100), None);
    }

    #[test]
    fn a_clock_of_cycles_stands_still_before_the_span_and_may_be_slow() {
        let cycles = TickClock::new(1_000_000, SampleClock::Cycles);
        // The CPU was idle until 50,000.
        assert_eq!(cycles.overdue(100, 50_000, 51_000), None);
        assert_eq!(cycles.overdue(100, 50_000, 54_000), None, "it may be four times slower");
        assert_eq!(cycles.overdue(100, 50_000, 59_000), Some((51_000, 59_000)));
        assert_eq!(cycles.overdue(52_000, 50_000, 59_000), Some((53_000, 59_000)));

        // A tick stands for the time since the last one, for a period at most.
        assert_eq!(cycles.weight(100, 50_000, 50_300), 300);
        assert_eq!(cycles.weight(50_300, 50_000, 50_900), 600);
        assert_eq!(cycles.weight(50_900, 50_000, 53_000), 1000);
        assert_eq!(cycles.weight(50_900, 50_000, 59_000), 500, "stopped somewhere between");
        assert_eq!(cycles.weight(0, 50_000, 50_700), 700, "others used the counter until then");
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
