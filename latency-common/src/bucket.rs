//! Bucket arithmetic: HdrHistogram's layout for two significant digits.
//!
//! Values are nanoseconds. Below 256 each value has its own bucket; above, every octave is split
//! into 128 buckets, so the width of a bucket is at most 1/128 (0.79 %) of its values. The last
//! bucket ends at [`MAX_VALUE`]. Bucket `i` here is counter `i` of an
//! `hdrhistogram::Histogram::new_with_bounds(1, MAX_VALUE, 2)`.

use core::hint::black_box;

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
    let shift = bit_length(value >> (SUB_BUCKET_BITS + 1));
    ((shift as usize) << SUB_BUCKET_BITS) + (value >> shift) as usize
}

/// Position of the highest bit of `value` plus one; `value` is below 2^32. BPF has no instruction
/// for it, and a table costs fewer than arithmetic: one look-up for durations up to 65 us.
#[inline(always)]
const fn bit_length(value: u64) -> u32 {
    let (value, above) = if value < 1 << 8 {
        (value, 0)
    } else if value < 1 << 16 {
        (value >> 8, 8)
    } else if value < 1 << 24 {
        (value >> 16, 16)
    } else {
        (value >> 24, 24)
    };
    // The compiler knows that this is a byte and the verifier does not: the mask has to stay.
    BIT_LENGTHS[black_box(value) as u8 as usize] as u32 + above
}

/// [`bit_length`] of each value of a byte.
static BIT_LENGTHS: [u8; 256] = {
    let mut lengths = [0; 256];
    let mut value = 1;
    while value < 256 {
        lengths[value] = lengths[value / 2] + 1;
        value += 1;
    }
    lengths
};

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
