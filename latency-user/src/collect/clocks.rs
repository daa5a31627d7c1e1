//! When the sampling clock of each CPU ran.

use std::collections::BTreeMap;

use crate::{analysis::stall_time::Range, model::run::SampleWhen};

/// `CLOCK_MONOTONIC`, which the kernel side reads, ns.
pub fn monotonic_ns() -> u64 {
    // SAFETY: all zero is a valid timespec, which the call overwrites; the clock exists.
    let now = unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now);
        now
    };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// How long runs of a clock are kept after their end, ns: longer than any stall lies open.
const KEPT_NS: u64 = 60_000_000_000;

/// The runs of each CPU's clock.
#[derive(Default)]
pub struct Clocks {
    when: SampleWhen,
    /// In order; the last one may go on, and then ends at the end of time.
    runs: BTreeMap<u32, Vec<Range>>,
}

impl Clocks {
    /// Clocks that always run, or only after stalls.
    pub fn new(when: SampleWhen) -> Self {
        Self { when, runs: BTreeMap::new() }
    }

    /// Notes that the clock of `cpu` runs since `now_ns`.
    pub fn started(&mut self, cpu: u32, now_ns: u64) {
        let runs = self.runs.entry(cpu).or_default();
        runs.retain(|(_, end)| end.saturating_add(KEPT_NS) > now_ns);
        runs.push((now_ns, u64::MAX));
    }

    /// Notes that the clock of `cpu` has stopped.
    pub fn stopped(&mut self, cpu: u32, now_ns: u64) {
        if let Some((_, end)) = self.runs.get_mut(&cpu).and_then(|runs| runs.last_mut()) {
            *end = now_ns;
        }
    }

    /// Since when the clock of `cpu` had run that ran in a span, or in a part of it; 0: always. `None`:
    /// none ran.
    pub fn since(&self, cpu: u32, (start, end): Range) -> Option<u64> {
        if self.when == SampleWhen::Always {
            return Some(0);
        }
        let overlaps = |run: &&Range| run.0 < end && start < run.1;
        self.runs.get(&cpu)?.iter().find(overlaps).map(|run| run.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_the_clock_that_ran_in_it() {
        let mut clocks = Clocks::new(SampleWhen::Stalled);
        assert_eq!(clocks.since(3, (100, 200)), None);
        clocks.started(3, 150);
        assert_eq!(clocks.since(3, (100, 200)), Some(150));
        assert_eq!(clocks.since(3, (100, 150)), None);
        assert_eq!(clocks.since(1, (100, 200)), None);
        clocks.stopped(3, 1000);
        assert_eq!(clocks.since(3, (900, 1100)), Some(150));
        assert_eq!(clocks.since(3, (1000, 1100)), None);
        clocks.started(3, 2000);
        assert_eq!(clocks.since(3, (900, 1100)), Some(150));
        assert_eq!(clocks.since(3, (2500, 2600)), Some(2000));
        clocks.stopped(3, 3000);
        clocks.started(3, 3000 + KEPT_NS);
        assert_eq!(clocks.since(3, (2500, 2600)), None, "forgotten");
    }

    #[test]
    fn a_clock_that_always_runs_has_done_so_before() {
        assert_eq!(Clocks::new(SampleWhen::Always).since(3, (100, 200)), Some(0));
    }
}
