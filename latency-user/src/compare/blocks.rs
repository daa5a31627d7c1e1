//! Recordings cut into parts of equal length: what is resampled.
//!
//! However long a recording is, it keeps at most [`MOST`] parts: when there are twice as many,
//! neighbours are joined. So memory stays the same, and parts of a long recording are long, which
//! keeps more of each cluster in one of them.

use std::collections::BTreeMap;

use latency_common::stage::Stage;

use crate::{
    model::{distribution::Distribution, source::Source},
    recording::reader::RecordedInterval,
};

/// The most parts of a recording.
pub const MOST: usize = 128;

/// An interval, or several joined.
#[derive(Clone, Default)]
pub struct Part {
    /// How long it lasted.
    pub seconds: f64,
    series: BTreeMap<String, Distribution>,
}

/// Events and what they are counted against, part by part.
pub(super) struct Counts {
    pub(super) events: Vec<f64>,
    pub(super) exposure: Vec<f64>,
}

/// The parts of a recording.
#[derive(Default)]
pub struct Blocks {
    parts: Vec<Part>,
    /// Intervals in each whole part.
    span: usize,
    /// Intervals in the last one.
    filled: usize,
    tags: BTreeMap<String, Option<Stage>>,
}

impl Blocks {
    /// Adds the next interval.
    pub fn add(&mut self, interval: &RecordedInterval) {
        self.span = self.span.max(1);
        if self.parts.is_empty() || self.filled == self.span {
            if self.parts.len() == 2 * MOST {
                self.join();
            }
            self.parts.push(Part::default());
            self.filled = 0;
        }
        self.filled += 1;
        let part = self.parts.last_mut().expect("a part was pushed when there was none");
        part.seconds += interval.duration.as_secs_f64();
        for (source, distribution) in &interval.series {
            let tag = source.tag();
            self.tags.entry(tag.clone()).or_insert_with(|| match source {
                Source::Series(series) => Some(series.stage),
                Source::Plain(_) => None,
            });
            part.series.entry(tag).or_default().add(distribution);
        }
    }

    /// Ends the recording: brings the parts down to [`MOST`], and gives a short one at the end,
    /// such as the rest of a second when a run ends, to the one before it.
    pub fn finish(&mut self) {
        while self.parts.len() > MOST {
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

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The tags in the recording.
    pub(super) fn tags(&self) -> impl Iterator<Item = &String> {
        self.tags.keys()
    }

    /// The distribution of a series in each part.
    pub(super) fn of_tag(&self, tag: &str) -> Vec<Distribution> {
        let of = |part: &Part| part.series.get(tag).cloned().unwrap_or_default();
        self.parts.iter().map(of).collect()
    }

    /// The distribution of a whole stage in each part.
    pub(super) fn of_stage(&self, stage: Stage) -> Vec<Distribution> {
        let sum = |part: &Part| {
            let mut sum = Distribution::default();
            let series = part.series.iter().filter(|(tag, _)| self.tags[*tag] == Some(stage));
            series.for_each(|(_, distribution)| sum.add(distribution));
            sum
        };
        self.parts.iter().map(sum).collect()
    }
}

impl Part {
    fn join(&mut self, other: Self) {
        self.seconds += other.seconds;
        for (tag, distribution) in other.series {
            self.series.entry(tag).or_default().add(&distribution);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn interval(number: u64) -> RecordedInterval {
        let mut distribution = Distribution::default();
        distribution.record(number, 1_000_000, 0);
        RecordedInterval {
            start: Duration::from_secs(number),
            duration: Duration::from_secs(1),
            series: vec![(Source::Plain("x".into()), distribution)],
            stalls: Vec::new(),
            collapses: Vec::new(),
            stacks: Vec::new(),
        }
    }

    #[test]
    fn long_recordings_have_few_parts_and_lose_nothing() {
        for intervals in [1, 5, 128, 129, 255, 256, 257, 3600] {
            let mut blocks = Blocks::default();
            (0..intervals).for_each(|number| blocks.add(&interval(number)));
            blocks.finish();
            let parts = blocks.parts();
            assert!(parts.len() <= MOST, "{intervals}: {}", parts.len());
            assert!(parts.len() as u64 >= intervals.min(57), "{intervals}: {}", parts.len());
            let counts: u64 = blocks.of_tag("x").iter().map(Distribution::count).sum();
            assert_eq!(counts, intervals);
            let lengths = parts[..parts.len() - 1].windows(2);
            assert!(lengths.into_iter().all(|pair| pair[0].seconds == pair[1].seconds));
        }
    }
}
