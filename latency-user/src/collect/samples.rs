//! Samples on their way to the stalls that they belong to.

use std::collections::BTreeMap;

use crate::kernel::maps::stall_decode::Sample;

/// Samples of each CPU in the order of time.
#[derive(Default)]
pub struct Samples(BTreeMap<u32, OfCpu>);

#[derive(Default)]
struct OfCpu {
    samples: Vec<Waiting>,
    /// Time of the last sample at the last discard.
    seen_until_ns: u64,
}

struct Waiting {
    sample: Sample,
    counted: bool,
}

impl Samples {
    /// Takes one that arrived.
    pub fn add(&mut self, sample: Sample) {
        let waiting = Waiting { sample, counted: false };
        self.0.entry(waiting.sample.cpu).or_default().samples.push(waiting);
    }

    /// Those that were taken on `cpu` between two times, both included. `first` is called with
    /// each that was in no earlier answer.
    pub fn between(
        &mut self,
        cpu: u32,
        start_ns: u64,
        end_ns: u64,
        mut first: impl FnMut(&Sample),
    ) -> Vec<&Sample> {
        let Some(of_cpu) = self.0.get_mut(&cpu) else { return Vec::new() };
        let from = of_cpu.samples.partition_point(|one| one.sample.at_ns < start_ns);
        let to = of_cpu.samples.partition_point(|one| one.sample.at_ns <= end_ns);
        of_cpu.samples[from..to.max(from)]
            .iter_mut()
            .map(|one| {
                if !one.counted {
                    one.counted = true;
                    first(&one.sample);
                }
                &one.sample
            })
            .collect()
    }

    /// Discards samples that no future stall can claim. Samples of the span still in progress are
    /// kept until a call finds no newer sample.
    pub fn discard_old(&mut self) {
        for of_cpu in self.0.values_mut() {
            let Some(last) = of_cpu.samples.last() else { continue };
            let (at_ns, since_ns) = (last.sample.at_ns, last.sample.since_ns);
            if at_ns == of_cpu.seen_until_ns {
                of_cpu.samples.clear();
            } else {
                of_cpu.samples.retain(|one| one.sample.since_ns == since_ns);
                of_cpu.seen_until_ns = at_ns;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use latency_common::stall_record::TaskRecord;

    use super::*;

    fn sample(at_ns: u64, since_ns: u64) -> Sample {
        Sample { cpu: 3, at_ns, since_ns, task: TaskRecord::default(), frames: vec![at_ns] }
    }

    fn times(samples: &mut Samples, cpu: u32, start_ns: u64, end_ns: u64) -> (Vec<u64>, usize) {
        let mut fresh = 0;
        let found = samples.between(cpu, start_ns, end_ns, |_| fresh += 1);
        (found.into_iter().map(|one| one.at_ns).collect(), fresh)
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
