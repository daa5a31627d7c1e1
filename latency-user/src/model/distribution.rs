//! Distributions: counts per bucket with an exact sum and maximum, and their sums.

use hdrhistogram::Histogram;
use latency_common::bucket::{BUCKETS, MAX_VALUE, SIGNIFICANT_DIGITS, index_of, lowest_value};

/// Durations of one series. Buckets are sparse: most series use a few dozen of the 3,840.
///
/// ```
/// use latency_user::model::distribution::Distribution;
///
/// let threshold_ns = 1_000_000;
/// let mut durations = Distribution::default();
/// durations.record(2_000, threshold_ns, 1);
/// durations.record(5_000_000, threshold_ns, 64);
/// assert_eq!((durations.count(), durations.over_threshold), (2, 1));
/// assert_eq!((durations.max_ns, durations.work), (5_000_000, 65));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Index of a bucket (see [`latency_common::bucket`]) and its count; ascending, no zero counts.
    pub buckets: Vec<(u16, u64)>,
    /// Sum of all durations, ns, exact.
    pub sum_ns: u64,
    /// Largest duration, ns: exact, or the upper end of the highest bucket where an interval's
    /// own maximum is not known.
    pub max_ns: u64,
    /// Durations at or above the threshold of the run.
    pub over_threshold: u64,
    /// Packets processed by NAPI polls; 0 for other stages.
    pub work: u64,
}

/// Behind the last bucket of any list.
const NONE: (u16, u64) = (u16::MAX, 0);

impl Distribution {
    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Number of durations in buckets that lie entirely at or above `ns`.
    pub fn count_from(&self, ns: u64) -> u64 {
        let first = index_of(ns);
        let first = if lowest_value(first) == ns { first } else { first + 1 };
        let above = self.buckets.iter().filter(|(i, _)| usize::from(*i) >= first);
        above.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Adds the durations of another distribution.
    pub fn add(&mut self, other: &Self) {
        self.add_buckets(&other.buckets);
        // Files can hold any number, and an overflow must not end the program.
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        self.over_threshold = self.over_threshold.saturating_add(other.over_threshold);
        self.work = self.work.saturating_add(other.work);
    }

    /// Merges two ascending lists. Moves counts only if `other` has new buckets, which in a long
    /// recording is rare.
    fn add_buckets(&mut self, other: &[(u16, u64)]) {
        let mut at = 0;
        let mut missing = Vec::new();
        for (index, sum) in &mut self.buckets {
            let mut next = other.get(at).copied().unwrap_or(NONE);
            while next.0 < *index {
                missing.push(next);
                at += 1;
                next = other.get(at).copied().unwrap_or(NONE);
            }
            let is_same = next.0 == *index;
            *sum = sum.saturating_add(if is_same { next.1 } else { 0 });
            at += usize::from(is_same);
        }
        missing.extend_from_slice(&other[at..]);
        // From the end, so that nothing is overwritten before it was moved.
        let mut from = self.buckets.len();
        let mut to = from + missing.len();
        self.buckets.resize(to, (0, 0));
        while let Some(&(index, _)) = missing.last() {
            to -= 1;
            match from.checked_sub(1).map(|last| self.buckets[last]) {
                Some(known) if known.0 > index => {
                    self.buckets[to] = known;
                    from -= 1;
                }
                _ => self.buckets[to] = missing.pop().unwrap_or_default(),
            }
        }
    }

    /// Adds one duration (ns), a stall if at or above the threshold, with the packets of a poll.
    pub fn record(&mut self, ns: u64, threshold_ns: u64, work: u64) {
        let index = index_of(ns) as u16;
        match self.buckets.binary_search_by_key(&index, |(i, _)| *i) {
            Ok(at) => self.buckets[at].1 += 1,
            Err(at) => self.buckets.insert(at, (index, 1)),
        }
        self.sum_ns += ns;
        self.max_ns = self.max_ns.max(ns);
        self.over_threshold += u64::from(ns >= threshold_ns);
        self.work += work;
    }

    /// The same counts as an HdrHistogram, bucket for bucket.
    pub fn histogram(&self) -> Histogram<u64> {
        let mut histogram = empty_histogram();
        for &(index, count) in &self.buckets {
            histogram
                .record_n(lowest_value(usize::from(index)), count)
                .expect("bucket indices lie within the histogram's bounds");
        }
        histogram
    }

    /// The value (ns) that is shown for one in this bucket: its upper end, but at most the maximum.
    /// The last bucket has no upper end but the maximum.
    pub fn upper_end(&self, index: u16) -> u64 {
        match usize::from(index) + 1 {
            BUCKETS => self.max_ns,
            _ => highest_value(index).min(self.max_ns),
        }
    }

    /// The value (ns) that a share `quantile` of the durations does not exceed, from their
    /// `histogram`, to the precision of a bucket.
    pub fn quantile(&self, histogram: &Histogram<u64>, quantile: f64) -> u64 {
        self.upper_end(index_of(histogram.value_at_quantile(quantile)) as u16)
    }

    /// Lower end of the lowest bucket in use, ns.
    pub fn min_ns(&self) -> u64 {
        self.buckets.first().map_or(0, |(i, _)| lowest_value(usize::from(*i)))
    }
}

/// A histogram with the bounds and precision of a row: its counter `i` is bucket `i`.
pub fn empty_histogram() -> Histogram<u64> {
    let histogram = Histogram::new_with_bounds(1, MAX_VALUE, SIGNIFICANT_DIGITS)
        .expect("constant bounds are valid");
    debug_assert_eq!(histogram.distinct_values(), BUCKETS);
    histogram
}

/// The largest value (ns) that a bucket counts.
pub fn highest_value(index: u16) -> u64 {
    match usize::from(index) + 1 {
        BUCKETS => MAX_VALUE,
        next => lowest_value(next) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> Distribution {
        let mut distribution = Distribution::default();
        for value in values {
            distribution.record(*value, 1_000_000, 0);
        }
        distribution
    }

    #[test]
    fn a_histogram_has_the_same_counts() {
        let values = [0, 1, 255, 256, 257, 1_000_003, MAX_VALUE];
        let histogram = of(&values).histogram();
        assert_eq!(histogram.len(), values.len() as u64);
        for value in values {
            assert_eq!(histogram.count_at(value), 1 + u64::from(value == 256 || value == 257));
        }
    }

    #[test]
    fn quantiles_in_the_last_bucket_are_the_maximum() {
        let distribution = of(&[7, 100_000_000_000]);
        let histogram = distribution.histogram();
        let quantile = |q| distribution.quantile(&histogram, q);
        assert_eq!((quantile(0.5), quantile(0.999)), (7, 100_000_000_000));
    }

    #[test]
    fn counts_from_a_bucket_edge() {
        assert_eq!(of(&[2_999_999, 3_000_001, 3_100_000]).count_from(2_900_000), 3);
        assert_eq!(of(&[10, 20]).count_from(20), 1);
    }
}
