//! One histogram in one map value.

use crate::bucket::{BUCKETS, SUB_BUCKETS};

/// A histogram of durations with its exact sum and maximum.
///
/// The number of recorded values is the sum of `buckets`. It is not stored separately, so the two
/// cannot disagree.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HistogramRow {
    /// Sum of all recorded durations, in ns, not rounded to buckets.
    pub sum_ns: u64,
    /// Largest recorded duration, in ns, not rounded to buckets.
    pub max_ns: u64,
    /// Number of durations at or above the threshold of the run, before rounding.
    pub over_threshold: u64,
    /// Packets processed by the polls of a NAPI row; 0 in rows of other stages.
    pub work: u64,
    /// Bit `i`: some bucket of group `i` (see [`group_of`]) is not 0. Readers skip empty groups,
    /// which are most of a row. Bits from [`GROUPS`] on mean nothing, and may be set.
    pub groups: u64,
    /// Keeps the buckets of each row at the start of a cache line.
    pub reserved: [u64; 3],
    /// Counts, laid out as in [`crate::bucket`]. Each starts again from 0 after 2^32 events: readers
    /// add up differences, and come back before a bucket can have had half as many.
    pub buckets: [u32; BUCKETS],
}

/// Buckets in a group: half an octave.
pub const GROUP: usize = SUB_BUCKETS / 2;

/// The group that `bucket` belongs to.
#[inline(always)]
pub const fn group_of(bucket: usize) -> u32 {
    (bucket / GROUP) as u32
}

/// Number of groups.
pub const GROUPS: usize = BUCKETS / GROUP;

const _: () = assert!(BUCKETS.is_multiple_of(GROUP) && GROUPS <= 64);
const _: () = assert!(size_of::<HistogramRow>() == 64 + 4 * BUCKETS);
const _: () = assert!(size_of::<HistogramRow>().is_multiple_of(64));
