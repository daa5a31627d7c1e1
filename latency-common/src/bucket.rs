//! Bucket arithmetic: HdrHistogram's layout for two significant digits.
//!
//! Values are nanoseconds. Below 256 each value has a bucket of its own; above, every octave is
//! cut into 128 buckets, so a bucket is at most 1/128 (0.79 %) of its values wide. The last
//! bucket ends at [`MAX_VALUE`]. Bucket `i` here is counter `i` of an
//! `hdrhistogram::Histogram::new_with_bounds(1, MAX_VALUE, 2)`.

/// log2 of [`SUB_BUCKETS`].
const SUB_BUCKET_BITS: u32 = 7;

/// Buckets in one octave.
pub const SUB_BUCKETS: usize = 1 << SUB_BUCKET_BITS;

/// Significant decimal digits that the layout keeps.
pub const SIGNIFICANT_DIGITS: u8 = 2;

/// Largest value with a bucket of its own: 2^36 - 1 ns, 68.7 s.
pub const MAX_VALUE: u64 = (1 << 36) - 1;

/// Number of buckets in a row.
pub const BUCKETS: usize = index_of(MAX_VALUE) + 1;

/// The bucket that counts `value` (ns). Values above [`MAX_VALUE`] are clamped to the last bucket.
#[inline(always)]
pub const fn index_of(value: u64) -> usize {
    let value = if value > MAX_VALUE { MAX_VALUE } else { value };
    let shift = bit_length((value >> (SUB_BUCKET_BITS + 1)) as u32);
    // Below 2 * SUB_BUCKETS the shift is 0 and the value is its own index.
    ((shift as usize) << SUB_BUCKET_BITS) + (value >> shift) as usize
}

/// Bits that `value` takes; 0 takes none.
///
/// BPF has no instruction for it. Durations of a stage lie close together, so that branches are
/// foreseen, and cost less than the thirty operations in a row that `leading_zeros` becomes.
#[inline(always)]
const fn bit_length(value: u32) -> u32 {
    let mut rest = value;
    let mut bits = 0;
    if rest >= 1 << 16 {
        rest >>= 16;
        bits += 16;
    }
    if rest >= 1 << 8 {
        rest >>= 8;
        bits += 8;
    }
    if rest >= 1 << 4 {
        rest >>= 4;
        bits += 4;
    }
    if rest >= 1 << 2 {
        rest >>= 2;
        bits += 2;
    }
    if rest >= 1 << 1 {
        rest >>= 1;
        bits += 1;
    }
    bits + rest
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
