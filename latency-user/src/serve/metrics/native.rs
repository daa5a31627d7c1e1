//! HDR buckets as buckets of Prometheus histograms, by constant tables.
//!
//! A bucket goes where its midpoint lies, so the map depends on nothing but the index of the bucket:
//! sums over CPUs, hosts and time are the same before and after it, and down-scaling gives what the
//! smaller schema would have given.

use latency_common::bucket::{BUCKETS, MAX_VALUE, lowest_value};

use crate::model::distribution::Distribution;

/// Buckets an octave are 2 to this power: 9.32 % is the largest error of an estimate.
pub const SCHEMA: i32 = 3;

/// Durations up to it are in the bucket for zero, s: 477 ns.
pub const ZERO_THRESHOLD: f64 = 1.0 / (1u64 << 21) as f64;

/// Classic bounds are 2 to these powers, less 1 ns: all of them edges of HDR buckets.
const CLASSIC: std::ops::RangeInclusive<u32> = 10..=33;

/// A native histogram in the form of the wire: spans of consecutive buckets, and the difference of
/// each to the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Native {
    /// Durations up to [`ZERO_THRESHOLD`].
    pub zero: u64,
    /// How many buckets are left out before a span (for the first: its index), and its length.
    pub spans: Vec<(i32, u32)>,
    /// The count of each bucket less that of the one before.
    pub deltas: Vec<i64>,
}

/// The map to the buckets of one schema.
#[derive(Debug)]
pub struct NativeMap {
    /// Its schema.
    pub schema: i32,
    /// By index of the HDR bucket.
    buckets: Vec<Option<i32>>,
}

/// The native bucket of an HDR bucket; `None`: the one for zero.
fn bucket_of(index: usize, schema: i32) -> Option<i32> {
    let (low, high) = (lowest_value(index), highest_value(index));
    let seconds = (low as f64 + high as f64) / 2.0 * 1e-9;
    if seconds <= ZERO_THRESHOLD {
        return None;
    }
    Some((seconds.log2() * 2f64.powi(schema)).ceil() as i32)
}

/// The largest duration in an HDR bucket, ns.
pub fn highest_value(index: usize) -> u64 {
    if index + 1 < BUCKETS { lowest_value(index + 1) - 1 } else { MAX_VALUE }
}

impl NativeMap {
    /// The map to `schema`, from 0 to 8.
    pub fn new(schema: i32) -> Self {
        Self { schema, buckets: (0..BUCKETS).map(|index| bucket_of(index, schema)).collect() }
    }

    /// The native histogram of these durations.
    pub fn map(&self, durations: &Distribution) -> Native {
        let mut native = Native::default();
        // Ascending, as the buckets of a distribution are.
        let mut counts: Vec<(i32, u64)> = Vec::new();
        for &(index, count) in &durations.buckets {
            match (self.buckets[usize::from(index)], counts.last_mut()) {
                (None, _) => native.zero += count,
                (Some(bucket), Some((last, sum))) if *last == bucket => *sum += count,
                (Some(bucket), _) => counts.push((bucket, count)),
            }
        }
        let (mut next, mut before) = (0, 0);
        for (bucket, count) in counts {
            match native.spans.last_mut() {
                Some((_, length)) if bucket == next => *length += 1,
                _ => native.spans.push((bucket - next, 1)),
            }
            native.deltas.push(count as i64 - before);
            (next, before) = (bucket + 1, count as i64);
        }
        native
    }
}

/// The classic buckets: upper bound in seconds, and the durations above the bound before it. All
/// counts are exact.
pub fn classic(durations: &Distribution) -> Vec<(f64, u64)> {
    let mut bounds: Vec<(f64, u64)> =
        CLASSIC.map(|power| (((1u64 << power) - 1) as f64 / 1e9, 0)).collect();
    bounds.push((f64::INFINITY, 0));
    let last = bounds.len() - 1;
    for &(index, count) in &durations.buckets {
        let octave = u64::BITS - lowest_value(index.into()).leading_zeros();
        let at = octave.saturating_sub(*CLASSIC.start()) as usize;
        bounds[at.min(last)].1 += count;
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(buckets: Vec<(u16, u64)>) -> Distribution {
        Distribution { buckets, ..Distribution::default() }
    }

    fn upper(bucket: i32, schema: i32) -> f64 {
        (f64::from(bucket) / 2f64.powi(schema)).exp2()
    }

    /// Whatever an estimate picks inside a bucket, and wherever a duration was in its own.
    #[test]
    fn errors_of_all_buckets_are_within_their_bounds() {
        for (schema, bound) in [(2, 0.1921), (3, 0.0933), (4, 0.0473), (5, 0.0248), (7, 0.0092)] {
            let mut worst: f64 = 0.0;
            for index in 0..BUCKETS {
                let Some(bucket) = bucket_of(index, schema) else {
                    assert!(highest_value(index) as f64 * 1e-9 < ZERO_THRESHOLD * 1.01);
                    continue;
                };
                let (low, high) =
                    (lowest_value(index) as f64 * 1e-9, highest_value(index) as f64 * 1e-9);
                let (from, to) = (upper(bucket - 1, schema), upper(bucket, schema));
                worst = worst.max((to - low) / low).max((high - from) / high);
            }
            assert!(worst <= bound, "schema {schema}: {worst}");
            assert!(worst > bound * 0.9, "schema {schema}: {worst}");
        }
    }

    #[test]
    fn downscaling_gives_what_the_smaller_schema_gives() {
        for schema in 1..=8 {
            for index in 0..BUCKETS {
                let halved = bucket_of(index, schema).map(|bucket| (bucket + 1).div_euclid(2));
                assert_eq!(halved, bucket_of(index, schema - 1), "{index} at {schema}");
            }
        }
    }

    fn buckets(native: &Native) -> Vec<(i32, u64)> {
        let (mut at, mut count, mut deltas) = (0, 0, native.deltas.iter());
        let mut buckets = Vec::new();
        for &(skipped, length) in &native.spans {
            at += skipped;
            for _ in 0..length {
                count += deltas.next().unwrap();
                buckets.push((at, count as u64));
                at += 1;
            }
        }
        buckets
    }

    #[test]
    fn sums_are_the_same_before_and_after_the_map() {
        let all: Vec<(u16, u64)> =
            (0..BUCKETS as u16).map(|i| (i, u64::from(i) * 7919 % 101 + 1)).collect();
        let (even, odd): (Vec<_>, Vec<_>) = all.iter().partition(|(i, _)| i % 3 == 0);
        for schema in [3, 5] {
            let map = NativeMap::new(schema);
            let mut sum = std::collections::BTreeMap::new();
            let mut zero = 0;
            for part in [&even, &odd] {
                let part = map.map(&of(part.clone()));
                zero += part.zero;
                for (bucket, count) in buckets(&part) {
                    *sum.entry(bucket).or_insert(0) += count;
                }
            }
            let whole = map.map(&of(all.clone()));
            assert_eq!(whole.zero, zero);
            assert_eq!(buckets(&whole), sum.into_iter().collect::<Vec<_>>());
            let total: u64 = all.iter().map(|(_, count)| count).sum();
            let mapped: u64 = buckets(&whole).iter().map(|(_, count)| count).sum();
            assert_eq!(mapped + whole.zero, total);
        }
    }

    #[test]
    fn classic_counts_are_exact_at_every_bound() {
        let all: Vec<(u16, u64)> =
            (0..BUCKETS as u16).map(|i| (i, u64::from(i) % 17 + 1)).collect();
        let (mut below, mut checked) = (0, 0);
        for (bound, count) in classic(&of(all.clone())) {
            below += count;
            let expected: u64 = all
                .iter()
                .filter(|(index, _)| highest_value((*index).into()) as f64 <= bound * 1e9 + 0.5)
                .map(|(_, count)| count)
                .sum();
            assert_eq!(below, expected, "le {bound}");
            checked += 1;
        }
        assert_eq!(checked, 25);
        assert_eq!(below, all.iter().map(|(_, count)| count).sum::<u64>());
    }
}
