//! Bucket arithmetic: HdrHistogram's layout for two significant digits.
//!
//! Values are nanoseconds. Below 256 each value has its own bucket; above, every octave is split
//! into 128 buckets, so the width of a bucket is at most 1/128 (0.79 %) of its values. The last
//! bucket ends at [`MAX_VALUE`]. Bucket `i` here is counter `i` of an
//! `hdrhistogram::Histogram::new_with_bounds(1, MAX_VALUE, 2)`.

/// log2 of [`SUB_BUCKETS`].
const SUB_BUCKET_BITS: u32 = 7;

/// Buckets in one octave.
pub const SUB_BUCKETS: usize = 1 << SUB_BUCKET_BITS;

/// Significant decimal digits that the layout keeps.
pub const SIGNIFICANT_DIGITS: u8 = 2;

/// Largest value that is not clamped: 2^36 - 1 ns, 68.7 s.
pub const MAX_VALUE: u64 = (1 << 36) - 1;

/// Number of buckets in a row.
pub const BUCKETS: usize = index_of(MAX_VALUE) + 1;

/// The bucket that counts `value` (ns). Values above [`MAX_VALUE`] are clamped to the last bucket.
#[inline(always)]
pub const fn index_of(value: u64) -> usize {
    let value = if value > MAX_VALUE { MAX_VALUE } else { value };
    // Below 2 * SUB_BUCKETS the shift is 0 and the value is its own index.
    let shift = 63 - (value | (2 * SUB_BUCKETS as u64 - 1)).leading_zeros() - SUB_BUCKET_BITS;
    ((shift as usize) << SUB_BUCKET_BITS) + (value >> shift) as usize
}

/// The smallest value (ns) that bucket `index` counts; `index` is below [`BUCKETS`].
pub const fn lowest_value(index: usize) -> u64 {
    if index < 2 * SUB_BUCKETS {
        return index as u64;
    }
    let shift = (index >> SUB_BUCKET_BITS) - 1;
    ((index - (shift << SUB_BUCKET_BITS)) as u64) << shift
}

const _: () = assert!(BUCKETS == 3840);
const _: () = assert!(index_of(u64::MAX) == BUCKETS - 1);
