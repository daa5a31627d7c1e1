//! One histogram in one map value.

use crate::bucket::BUCKETS;

/// A histogram of durations with its exact sum and maximum.
///
/// The number of recorded values is the sum of `buckets`: it is not kept a second time, so the
/// two can never disagree.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HistogramRow {
    /// Sum of all recorded durations, in ns, not rounded to buckets.
    pub sum_ns: u64,
    /// Largest recorded duration, in ns, not rounded to buckets.
    pub max_ns: u64,
    /// Durations at or above the threshold of the run, compared before rounding.
    pub over_threshold: u64,
    /// Packets that the polls of a NAPI row processed; 0 in rows of other stages.
    pub work: u64,
    /// Keeps the buckets of each row at the start of a cache line.
    pub reserved: [u64; 4],
    /// Counts, laid out as [`crate::bucket`] says.
    pub buckets: [u64; BUCKETS],
}

const _: () = assert!(size_of::<HistogramRow>() == 64 + 8 * BUCKETS);
const _: () = assert!(size_of::<HistogramRow>().is_multiple_of(64));
