//! Samples that wait for the stalls that they belong to.

use std::collections::BTreeMap;

use crate::{
    analysis::stall_time::{Range, TickClock},
    kernel::maps::stall_decode::Sample,
};

/// Samples of each CPU in chronological order.
#[derive(Default)]
pub struct Samples(BTreeMap<u32, CpuSamples>);

#[derive(Default)]
struct CpuSamples {
    pending: Vec<PendingSample>,
    /// Time of the last sample at the last discard.
    seen_until_ns: u64,
}

struct PendingSample {
    sample: Sample,
    counted: bool,
}

impl Samples {
    /// Adds a sample.
    pub fn add(&mut self, sample: Sample) {
        let pending = PendingSample { sample, counted: false };
        self.0.entry(pending.sample.cpu).or_default().pending.push(pending);
    }

    /// Samples of `cpu` from `start_ns` to `end_ns`, inclusive. Calls `first` for each sample that
    /// no earlier call returned.
    pub fn between(
        &mut self,
        cpu: u32,
        start_ns: u64,
        end_ns: u64,
        mut first: impl FnMut(&Sample),
    ) -> Vec<&Sample> {
        let Some(cpu_samples) = self.0.get_mut(&cpu) else { return Vec::new() };
        let from = cpu_samples.pending.partition_point(|pending| pending.sample.at_ns < start_ns);
        let to = cpu_samples.pending.partition_point(|pending| pending.sample.at_ns <= end_ns);
        cpu_samples.pending[from..to.max(from)]
            .iter_mut()
            .map(|pending| {
                if !pending.counted {
                    pending.counted = true;
                    first(&pending.sample);
                }
                &pending.sample
            })
            .collect()
    }

    /// Parts of the time from `start_ns` to `end_ns` in which the clock of `cpu`, which has run since
    /// `clock_since_ns` and ticked last at `last_tick_ns`, was overdue.
    pub fn overdue(
        &self,
        cpu: u32,
        (start_ns, end_ns): Range,
        (clock_since_ns, last_tick_ns): (u64, u64),
        clock: TickClock,
    ) -> Vec<Range> {
        let pending = self.0.get(&cpu).map_or(&[][..], |cpu_samples| &cpu_samples.pending);
        // A tick may come between the stamp of the end and the record of the last tick.
        let until = end_ns.max(last_tick_ns);
        let from = pending.partition_point(|pending| pending.sample.at_ns < start_ns);
        let to = pending.partition_point(|pending| pending.sample.at_ns <= until);
        let before_ticks = pending[from..to.max(from)]
            .iter()
            .filter_map(|pending| late(&pending.sample, clock_since_ns, clock));
        let last = last_tick_ns.max(clock_since_ns);
        let ranges = before_ticks.chain(clock.overdue(last, start_ns, end_ns));
        ranges
            .map(|(from, to)| (from.max(start_ns), to.min(end_ns)))
            .filter(|(from, to)| from < to)
            .collect()
    }

    /// Discards samples that no future stall can claim. Samples of the span still in progress are
    /// kept until a call finds no newer sample.
    pub fn discard_old(&mut self) {
        for cpu_samples in self.0.values_mut() {
            let Some(last) = cpu_samples.pending.last() else { continue };
            let (at_ns, since_ns) = (last.sample.at_ns, last.sample.since_ns);
            if at_ns == cpu_samples.seen_until_ns {
                cpu_samples.pending.clear();
            } else {
                cpu_samples.pending.retain(|pending| pending.sample.since_ns == since_ns);
                cpu_samples.seen_until_ns = at_ns;
            }
        }
    }
}

/// The time in which the clock, which has run since `clock_since_ns`, was overdue before `sample`.
fn late(sample: &Sample, clock_since_ns: u64, clock: TickClock) -> Option<Range> {
    clock.overdue(sample.previous_tick_ns.max(clock_since_ns), sample.since_ns, sample.at_ns)
}

#[cfg(test)]
mod tests {
    use latency_common::task_record::TaskRecord;

    use super::*;
    use crate::model::run::SampleClock;

    fn sample(at_ns: u64, since_ns: u64) -> Sample {
        Sample {
            cpu: 3,
            at_ns,
            since_ns,
            previous_tick_ns: at_ns - 10,
            task: TaskRecord::default(),
            frames: vec![at_ns],
        }
    }

    fn times(samples: &mut Samples, cpu: u32, start_ns: u64, end_ns: u64) -> (Vec<u64>, usize) {
        let mut fresh = 0;
        let found = samples.between(cpu, start_ns, end_ns, |_| fresh += 1);
        (found.into_iter().map(|sample| sample.at_ns).collect(), fresh)
    }

    #[test]
    fn a_sample_belongs_to_every_stall_around_it_but_counts_once() {
        let mut samples = Samples::default();
        for at in [100, 200, 300] {
            samples.add(sample(at, 90));
        }
        assert_eq!(times(&mut samples, 3, 150, 200), (vec![200], 1));
        assert_eq!(times(&mut samples, 3, 90, 300), (vec![100, 200, 300], 2));
        assert_eq!(times(&mut samples, 0, 90, 300), (vec![], 0));
        assert_eq!(times(&mut samples, 3, 301, 400), (vec![], 0));
    }

    #[test]
    fn the_clock_is_overdue_between_late_ticks_and_after_the_last() {
        let mut samples = Samples::default();
        for (at_ns, previous_tick_ns) in [(1100, 1000), (1900, 1100), (2000, 1900)] {
            samples.add(Sample { previous_tick_ns, ..sample(at_ns, 1050) });
        }
        // A period of 100 ns.
        let clock = TickClock::new(10_000_000, SampleClock::Time);
        let of = |range, last_tick| samples.overdue(3, range, (0, last_tick), clock);
        assert_eq!(of((1050, 2500), 2000), [(1200, 1900), (2100, 2500)]);
        assert_eq!(of((1050, 1300), 1100), [(1200, 1300)]);
        // The tick that shows it came just after the end.
        assert_eq!(of((1050, 1890), 1900), [(1200, 1890)]);
        assert_eq!(of((1300, 1800), 1100), [(1300, 1800)]);
        assert_eq!(of((1050, 1150), 1100), []);
    }

    #[test]
    fn only_samples_of_the_span_in_progress_stay() {
        let mut samples = Samples::default();
        for (at, since) in [(100, 90), (200, 190), (300, 190)] {
            samples.add(sample(at, since));
        }
        samples.discard_old();
        assert_eq!(times(&mut samples, 3, 0, 999).0, [200, 300]);
        samples.add(sample(400, 190));
        samples.discard_old();
        assert_eq!(times(&mut samples, 3, 0, 999).0, [200, 300, 400]);
        samples.discard_old();
        assert_eq!(times(&mut samples, 3, 0, 999).0, [] as [u64; 0]);
    }
}
