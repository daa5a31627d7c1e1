//! Recordings cut into parts of equal length, for resampling.
//!
//! However long a recording is, it keeps at most [`MAX_PARTS`] parts: when there are twice as many,
//! neighbours are joined. Memory is therefore bounded, and the parts of a long recording are long,
//! so that more of each cluster of stalls is in one part.

use std::collections::{BTreeMap, BTreeSet};

use latency_common::stage::Stage;

use crate::{
    analysis::stall_time::is_stolen,
    model::{
        distribution::Distribution,
        interval::Interval,
        run::Run,
        series::{Series, SeriesKey},
        stall::Stall,
    },
};

/// The most parts of a recording.
pub const MAX_PARTS: usize = 128;

/// An interval, or several joined.
#[derive(Clone, Default)]
pub struct Part {
    /// How long it lasted.
    pub seconds: f64,
    series: BTreeMap<SeriesKey, Distribution>,
    /// Stalls that were the hypervisor's, by stage.
    stolen: BTreeMap<Stage, u64>,
}

/// The parts of a recording.
#[derive(Default)]
pub struct Parts {
    parts: Vec<Part>,
    /// Intervals in each full part.
    span: usize,
    /// Intervals in the last part.
    filled: usize,
    keys: BTreeSet<SeriesKey>,
}

impl Parts {
    /// Adds the next interval of `run`; `None`: another program's log.
    pub fn add(&mut self, interval: &Interval<SeriesKey>, run: Option<&Run>) {
        self.span = self.span.max(1);
        if self.parts.is_empty() || self.filled == self.span {
            if self.parts.len() == 2 * MAX_PARTS {
                self.join();
            }
            self.parts.push(Part::default());
            self.filled = 0;
        }
        self.filled += 1;
        let part = self.parts.last_mut().expect("a part was pushed when there was none");
        part.seconds += interval.duration.as_secs_f64();
        if let Some(run) = run {
            let is_stolen = |stall: &&Stall| is_stolen(stall, run.sampling.hz, run.threshold_ns);
            for stall in interval.batch.stalls.iter().filter(is_stolen) {
                *part.stolen.entry(stall.stage).or_default() += 1;
            }
        }
        for Series { id, distribution, .. } in &interval.series {
            if !self.keys.contains(id) {
                self.keys.insert(id.clone());
            }
            match part.series.get_mut(id) {
                Some(sum) => sum.add(distribution),
                None => drop(part.series.insert(id.clone(), distribution.clone())),
            }
        }
    }

    /// Ends the recording: reduces the parts to [`MAX_PARTS`], and joins a short last part, such as
    /// the rest of a second when a run ends, to the one before it.
    pub fn finish(&mut self) {
        while self.parts.len() > MAX_PARTS {
            self.join();
        }
        if let [.., before, last] = &self.parts[..]
            && last.seconds < before.seconds / 2.0
            && let Some(last) = self.parts.pop()
            && let Some(before) = self.parts.last_mut()
        {
            before.join(last);
        }
    }

    fn join(&mut self) {
        let mut joined: Vec<Part> = Vec::with_capacity(self.parts.len().div_ceil(2));
        for (at, part) in std::mem::take(&mut self.parts).into_iter().enumerate() {
            match joined.last_mut() {
                Some(last) if at % 2 == 1 => last.join(part),
                _ => joined.push(part),
            }
        }
        self.parts = joined;
        self.span *= 2;
    }

    /// The parts in their order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The series in the recording.
    pub fn keys(&self) -> &BTreeSet<SeriesKey> {
        &self.keys
    }

    /// The distribution of a series in each part.
    pub fn of_series(&self, key: &SeriesKey) -> Vec<Distribution> {
        let of = |part: &Part| part.series.get(key).cloned().unwrap_or_default();
        self.parts.iter().map(of).collect()
    }

    /// The distribution of a stage, summed over its series, in each part.
    pub fn of_stage(&self, stage: Stage) -> Vec<Distribution> {
        let sum = |part: &Part| {
            let mut sum = Distribution::default();
            for (key, distribution) in &part.series {
                if key.known().is_some_and(|id| id.stage == stage) {
                    sum.add(distribution);
                }
            }
            sum
        };
        self.parts.iter().map(sum).collect()
    }
}

impl Part {
    /// Stalls of a stage that were the hypervisor's, as far as they were recorded singly.
    pub fn stolen(&self, stage: Stage) -> u64 {
        self.stolen.get(&stage).copied().unwrap_or(0)
    }

    fn join(&mut self, other: Self) {
        self.seconds += other.seconds;
        for (key, distribution) in other.series {
            self.series.entry(key).or_default().add(&distribution);
        }
        for (stage, stalls) in other.stolen {
            *self.stolen.entry(stage).or_default() += stalls;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{series::attrs::QueueAttrs, stall::batch::StallBatch};

    fn interval(number: u64) -> Interval<SeriesKey> {
        let mut distribution = Distribution::default();
        distribution.record(number, 1_000_000, 0);
        let id = SeriesKey::Foreign("x".into());
        Interval {
            start: Duration::from_secs(number),
            duration: Duration::from_secs(1),
            series: vec![Series { id, attrs: QueueAttrs::default(), distribution }],
            batch: StallBatch::default(),
            steal: None,
            merged: None,
        }
    }

    #[test]
    fn long_recordings_have_few_parts_and_lose_nothing() {
        for intervals in [1, 5, 128, 129, 255, 256, 257, 3600] {
            let mut recording = Parts::default();
            (0..intervals).for_each(|number| recording.add(&interval(number), None));
            recording.finish();
            let parts = recording.parts();
            assert!(parts.len() <= MAX_PARTS, "{intervals}: {}", parts.len());
            assert!(parts.len() as u64 >= intervals.min(57), "{intervals}: {}", parts.len());
            let counts: u64 = recording
                .of_series(&SeriesKey::Foreign("x".into()))
                .iter()
                .map(Distribution::count)
                .sum();
            assert_eq!(counts, intervals);
            let lengths = parts[..parts.len() - 1].windows(2);
            assert!(lengths.into_iter().all(|pair| pair[0].seconds == pair[1].seconds));
        }
    }
}
