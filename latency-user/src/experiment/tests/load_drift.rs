//! Simulated experiments under a load that grows threefold, with no true effect.

use std::time::Duration;

use crate::{
    compare::compare,
    model::{
        comparison::Verdict,
        distribution::Distribution,
        interval::Interval,
        run::{Run, Sampling, Transport},
        series::{Location, Series},
    },
    recording::{loaded::LoadedRecording, writer::Writer},
};
use latency_common::stage::Stage;

const EXPERIMENTS: u64 = 50;
const ROUNDS: usize = 3;
/// Intervals in a window.
const INTERVALS: usize = 10;
const THRESHOLD_NS: u64 = 1_000_000;

/// A linear congruential generator: numbers from 0 to 1, the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A Poisson number by counting exponential waits.
    fn poisson(&mut self, mean: f64) -> u64 {
        let (mut count, mut waited) = (0, -(1.0 - self.next()).ln());
        while waited < mean {
            count += 1;
            waited -= (1.0 - self.next()).ln();
        }
        count
    }
}

/// One interval: events grow with `progress`, and so does the share of stalls among them. Every
/// fifth interval or so has a burst.
fn interval(random: &mut Random, progress: f64) -> Distribution {
    let load = 1.0 + 2.0 * progress;
    let burst = if random.next() < 0.2 { 4.0 } else { 1.0 };
    let stalls = random.poisson(1.5 * load * load * burst);
    let mut distribution = Distribution::default();
    for _ in 0..random.poisson(2_000.0 * load) {
        distribution.record(2_000, THRESHOLD_NS, 0);
    }
    for _ in 0..stalls {
        distribution.record((1.0 + 4.0 * random.next()) as u64 * THRESHOLD_NS, THRESHOLD_NS, 0);
    }
    distribution
}

fn verdict(seed: u64) -> Verdict {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let directory = tempfile::tempdir().unwrap();
    let run = Run {
        host: "edge".into(),
        kernel: "6.18".into(),
        started_at: "2026-01-02T03:04:05.006Z".into(),
        duration_s: 0.0,
        ifaces: Vec::new(),
        threshold_ns: THRESHOLD_NS,
        transport: Transport::Maps,
        probes: Vec::new(),
        sampling: Sampling::default(),
        cpus: 1,
        version: "0.1.0".into(),
    };
    let paths = ["before", "after"].map(|side| directory.path().join(format!("{side}.hlog")));
    let mut writers = paths.each_ref().map(|path| Writer::create(path).unwrap());
    writers.iter_mut().for_each(|writer| writer.start(&run).unwrap());
    let windows = 2 * ROUNDS + 1;
    for at in 0..windows * INTERVALS {
        let progress = at as f64 / (windows * INTERVALS) as f64;
        let distribution = interval(&mut random, progress);
        let series = Series::new(Stage::NetRx, Location::Cpu(0), distribution);
        let second = Duration::from_secs(1);
        let interval = Interval::new(second * at as u32, second, vec![series]);
        writers[at / INTERVALS % 2].interval(&interval).unwrap();
    }
    let [before, after] = paths.map(|path| LoadedRecording::read(&path).unwrap());
    compare(&before, &after).verdict
}

#[test]
fn a_growing_load_is_not_taken_for_an_effect() {
    let verdicts: Vec<Verdict> = (0..EXPERIMENTS).map(verdict).collect();
    let count = |wanted| verdicts.iter().filter(|verdict| **verdict == wanted).count();
    assert!(20 * count(Verdict::Improved) <= verdicts.len(), "{verdicts:?}");
    assert!(20 * count(Verdict::Worse) <= verdicts.len(), "{verdicts:?}");
    assert_eq!(count(Verdict::NotComparable), 0);
}
