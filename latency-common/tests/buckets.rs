//! Compares the bucket arithmetic with HdrHistogram's.

#![expect(clippy::unwrap_used, reason = "helpers of tests are outside test functions")]

use hdrhistogram::Histogram;
use latency_common::bucket::{
    BUCKETS, MAX_VALUE, SIGNIFICANT_DIGITS, SUB_BUCKETS, index_of, lowest_value,
};
use proptest::prelude::*;

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_VALUE, SIGNIFICANT_DIGITS).unwrap()
}

/// Index of the counter that HdrHistogram uses for `value`. HdrHistogram does not expose it, so it
/// is found by iterating over all counters.
fn counter_of(value: u64) -> usize {
    let mut histogram = histogram();
    histogram.record(value).unwrap();
    histogram.iter_all().position(|counter| counter.count_at_value() == 1).unwrap()
}

#[test]
fn bucket_bounds_match_hdrhistograms() {
    let histogram = histogram();
    assert_eq!(histogram.distinct_values(), BUCKETS);
    let mut next = 0;
    for (index, counter) in histogram.iter_all().enumerate() {
        let highest = counter.value_iterated_to();
        let lowest = histogram.lowest_equivalent(highest);
        assert_eq!(lowest, next, "no gap before bucket {index}");
        assert_eq!(lowest_value(index), lowest);
        assert_eq!(index_of(lowest), index);
        assert_eq!(index_of(highest), index);
        next = highest + 1;
    }
    assert_eq!(next, MAX_VALUE + 1);
}

#[test]
fn edge_values_are_counted_where_hdrhistogram_counts_them() {
    for exponent in 0..36 {
        for value in [(1 << exponent) - 1, 1 << exponent, (1 << exponent) + 1] {
            assert_eq!(index_of(value), counter_of(value), "{value}");
        }
    }
    assert_eq!(index_of(MAX_VALUE), counter_of(MAX_VALUE));
}

#[test]
fn too_large_values_go_into_the_last_bucket() {
    for value in [MAX_VALUE + 1, 1 << 40, u64::MAX] {
        assert_eq!(index_of(value), BUCKETS - 1, "{value}");
    }
}

proptest! {
    #[test]
    fn any_value_is_counted_where_hdrhistogram_counts_it(value in 0..=MAX_VALUE) {
        prop_assert_eq!(index_of(value), counter_of(value));
    }

    /// Every magnitude is equally likely.
    #[test]
    fn any_magnitude_is_counted_where_hdrhistogram_counts_it(
        shift in 0..36_u32, bits in any::<u64>(),
    ) {
        let value = (bits & MAX_VALUE) >> shift;
        prop_assert_eq!(index_of(value), counter_of(value));
    }

    #[test]
    fn a_bucket_is_at_most_a_sub_bucket_wide(value in 1..=MAX_VALUE) {
        let index = index_of(value);
        let width = match index + 1 {
            BUCKETS => MAX_VALUE + 1 - lowest_value(index),
            next => lowest_value(next) - lowest_value(index),
        };
        prop_assert!(width == 1 || width * SUB_BUCKETS as u64 <= lowest_value(index));
    }
}
