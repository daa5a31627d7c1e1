//! Decodes the histograms of interval logs: HdrHistogram V2, plain or deflated.
//!
//! The `hdrhistogram` crate decodes them too, but into an array of all counters, and trusts the
//! lengths in the file: a few wrong bytes make it allocate gigabytes. This decoder allocates only
//! what the data fills.

use std::io::Read;

use flate2::read::ZlibDecoder;
use latency_common::bucket::{MAX_VALUE, index_of};
use thiserror::Error;

use crate::model::distribution::Distribution;

const V2_COOKIE: u32 = 0x1c84_9303;
const DEFLATED_COOKIE: u32 = 0x1c84_9304;
/// Masks out the bits of a cookie in which older writers store the size of a counter.
const COOKIE_MASK: u32 = !0xf0;

/// Bytes of the header after the cookie.
const HEADER: usize = 36;

/// The longest payload of any valid histogram: 64 octaves of 2^17 half-buckets, 9 bytes each.
const MAX_PAYLOAD: u64 = 64 * (1 << 17) * 9;

/// Why a histogram cannot be decoded.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The data ends early, or does not inflate.
    #[error("histogram is cut short or does not inflate")]
    Short,
    /// Another format, or none.
    #[error("no HdrHistogram V2 data: cookie {0:#010x}")]
    Cookie(u32),
    /// The header has values that no histogram can have, or features that no writer uses.
    #[error("histogram header has {0}")]
    Header(&'static str),
    /// The counters do not fit their header.
    #[error("histogram has {0}")]
    Counters(&'static str),
}

/// A decoded histogram.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Counts in our buckets. The sum is that of the middles of the histogram's buckets, the
    /// maximum the upper end of its highest bucket.
    pub distribution: Distribution,
    /// Whether the histogram's buckets were ours, so that nothing was rounded a second time.
    pub same_buckets: bool,
}

/// Decodes one histogram.
///
/// # Errors
///
/// When `bytes` is not exactly one V2 histogram with integer values.
pub fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let (cookie, rest) = word(bytes)?;
    match cookie & COOKIE_MASK {
        V2_COOKIE => decode_plain(rest),
        DEFLATED_COOKIE => {
            let (length, rest) = word(rest)?;
            let deflated = rest.get(..length as usize).ok_or(DecodeError::Short)?;
            let mut inflated = Vec::new();
            ZlibDecoder::new(deflated)
                .take(MAX_PAYLOAD + HEADER as u64 + 4)
                .read_to_end(&mut inflated)
                .map_err(|_| DecodeError::Short)?;
            let (cookie, rest) = word(&inflated)?;
            match cookie & COOKIE_MASK {
                V2_COOKIE => decode_plain(rest),
                _ => Err(DecodeError::Cookie(cookie)),
            }
        }
        _ => Err(DecodeError::Cookie(cookie)),
    }
}

/// The bucket layout of a histogram: which values a counter stands for.
struct Layout {
    unit_magnitude: u32,
    half_magnitude: u32,
}

impl Layout {
    fn new(lowest: u64, digits: u32) -> Result<Self, DecodeError> {
        if !(1..=5).contains(&digits) {
            return Err(DecodeError::Header("a precision that is not 1 to 5 digits"));
        }
        let unit_magnitude =
            lowest.checked_ilog2().ok_or(DecodeError::Header("a lowest value of 0"))?;
        let sub_buckets = (2 * 10_u64.pow(digits)).next_power_of_two();
        Ok(Self { unit_magnitude, half_magnitude: sub_buckets.ilog2() - 1 })
    }

    /// The lowest and the highest value that counter `index` stands for.
    fn bounds(&self, index: u64) -> Option<(u64, u64)> {
        let half = 1_u64 << self.half_magnitude;
        let octave = (index >> self.half_magnitude).saturating_sub(1);
        let sub_bucket = index - octave * half;
        let shift = u32::try_from(octave).ok()?.checked_add(self.unit_magnitude)?;
        let lowest = sub_bucket.checked_mul(1_u64.checked_shl(shift)?)?;
        lowest.checked_add((1 << shift) - 1).map(|highest| (lowest, highest))
    }
}

fn decode_plain(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let (length, bytes) = word(bytes)?;
    let (offset, bytes) = word(bytes)?;
    let (digits, bytes) = word(bytes)?;
    let (lowest, bytes) = double_word(bytes)?;
    let (_highest, bytes) = double_word(bytes)?;
    let (ratio, bytes) = double_word(bytes)?;
    if offset != 0 {
        return Err(DecodeError::Header("a normalizing offset: shifted values are not supported"));
    }
    if f64::from_bits(ratio) != 1.0 {
        return Err(DecodeError::Header("a conversion ratio: only integer values are supported"));
    }
    let layout = Layout::new(lowest, digits)?;
    let payload = bytes.get(..length as usize).ok_or(DecodeError::Short)?;
    let mut decoded = Decoded {
        distribution: Distribution::default(),
        same_buckets: digits == 2 && layout.unit_magnitude == 0,
    };
    let mut numbers = payload;
    let mut index = 0_u64;
    while !numbers.is_empty() {
        let number = zig_zag(varint(&mut numbers)?);
        match u64::try_from(number) {
            Ok(count) => {
                if count > 0 {
                    let bounds = layout.bounds(index);
                    let bounds = bounds.ok_or(DecodeError::Counters("a counter beyond 2^64"))?;
                    add(&mut decoded.distribution, bounds, count)?;
                }
                index += 1;
            }
            Err(_) => {
                index = index
                    .checked_add(number.unsigned_abs())
                    .filter(|index| *index <= MAX_PAYLOAD)
                    .ok_or(DecodeError::Counters("more counters than any histogram"))?;
            }
        }
    }
    Ok(decoded)
}

/// Adds the count of a counter. Counters come in ascending order.
fn add(
    distribution: &mut Distribution,
    (lowest, highest): (u64, u64),
    count: u64,
) -> Result<(), DecodeError> {
    let middle = lowest + (highest - lowest) / 2;
    let index = index_of(middle) as u16;
    let overflow = DecodeError::Counters("more than 2^64 counts");
    match distribution.buckets.last_mut() {
        Some((last, sum)) if *last == index => *sum = sum.checked_add(count).ok_or(overflow)?,
        _ => distribution.buckets.push((index, count)),
    }
    distribution.sum_ns = distribution.sum_ns.saturating_add(middle.saturating_mul(count));
    distribution.max_ns = highest.min(MAX_VALUE);
    Ok(())
}

fn word(bytes: &[u8]) -> Result<(u32, &[u8]), DecodeError> {
    let (word, rest) = bytes.split_first_chunk::<4>().ok_or(DecodeError::Short)?;
    Ok((u32::from_be_bytes(*word), rest))
}

fn double_word(bytes: &[u8]) -> Result<(u64, &[u8]), DecodeError> {
    let (word, rest) = bytes.split_first_chunk::<8>().ok_or(DecodeError::Short)?;
    Ok((u64::from_be_bytes(*word), rest))
}

/// LEB128 of at most 9 bytes; the ninth has 8 bits of data.
fn varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0;
    for at in 0..9 {
        let (&byte, rest) = bytes.split_first().ok_or(DecodeError::Short)?;
        *bytes = rest;
        if at == 8 || byte & 0x80 == 0 {
            return Ok(value | u64::from(byte) << (7 * at));
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
    }
    unreachable!("the ninth byte returns")
}

fn zig_zag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use hdrhistogram::{
        Histogram,
        serialization::{Serializer, V2DeflateSerializer, V2Serializer},
    };
    use latency_common::bucket::{BUCKETS, lowest_value};
    use proptest::prelude::*;

    use super::*;

    fn deflated(histogram: &Histogram<u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(histogram, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn every_bucket_comes_back_in_place() {
        let buckets = (0..BUCKETS).map(|index| (index as u16, 1 + index as u64 * 7919)).collect();
        let all = Distribution { buckets, ..Distribution::default() };
        let decoded = decode(&deflated(&all.histogram())).unwrap();
        assert!(decoded.same_buckets);
        assert_eq!(decoded.distribution.buckets, all.buckets);
        assert_eq!(decoded.distribution.max_ns, MAX_VALUE);
    }

    #[test]
    fn other_precisions_are_rounded_to_our_buckets() {
        for digits in 1..=5 {
            let mut histogram = Histogram::<u64>::new_with_max(1 << 40, digits).unwrap();
            for value in [0, 1, 999, 1_000_003, 70_000_000_000] {
                histogram.record(value).unwrap();
            }
            let mut bytes = Vec::new();
            V2Serializer::new().serialize(&histogram, &mut bytes).unwrap();
            let decoded = decode(&bytes).unwrap();
            assert_eq!(decoded.same_buckets, digits == 2);
            assert_eq!(decoded.distribution.count(), 5);
            // A bucket of one digit is up to 1/16 wide.
            let above = decoded.distribution.count_from(900_000);
            assert_eq!(above, 2, "{digits} digits");
            assert!(decoded.distribution.buckets.iter().all(|(i, _)| usize::from(*i) < BUCKETS));
        }
    }

    #[test]
    fn invalid_histograms_are_reported() {
        assert_eq!(decode(b""), Err(DecodeError::Short));
        assert_eq!(decode(b"HIST0000"), Err(DecodeError::Cookie(0x4849_5354)));
        let mut histogram = Histogram::<u64>::new_with_max(1000, 2).unwrap();
        histogram.record(7).unwrap();
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&histogram, &mut bytes).unwrap();
        let last = bytes.len() - 1;
        assert_eq!(decode(&bytes[..last]), Err(DecodeError::Short));
        // A payload length of 4 GiB: the data is missing, and nothing of that size is allocated.
        let mut long = bytes.clone();
        long[4..8].fill(0xff);
        assert_eq!(decode(&long), Err(DecodeError::Short));
        bytes[15] = 9;
        let digits = DecodeError::Header("a precision that is not 1 to 5 digits");
        assert_eq!(decode(&bytes), Err(digits));
    }

    proptest! {
        #[test]
        fn counts_read_as_hdrhistogram_wrote_them(
            counts in proptest::collection::btree_map(0..BUCKETS as u16, 1..u64::MAX >> 13, 0..50)
        ) {
            let buckets: Vec<_> = counts.into_iter().collect();
            let distribution = Distribution { buckets, ..Distribution::default() };
            let decoded = decode(&deflated(&distribution.histogram())).unwrap();
            prop_assert_eq!(&decoded.distribution.buckets, &distribution.buckets);
            let lowest = distribution.buckets.first().map(|(i, _)| lowest_value(usize::from(*i)));
            prop_assert_eq!(decoded.distribution.min_ns(), lowest.unwrap_or(0));
        }

        #[test]
        fn damage_never_panics(
            at in 0..60_usize,
            byte in any::<u8>(),
            plain in any::<bool>(),
            values in proptest::collection::vec(0..MAX_VALUE, 1..20),
        ) {
            let mut histogram = crate::model::distribution::empty_histogram();
            for value in values {
                histogram.record(value).unwrap();
            }
            let mut bytes = Vec::new();
            if plain {
                V2Serializer::new().serialize(&histogram, &mut bytes).unwrap();
            } else {
                bytes = deflated(&histogram);
            }
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = decode(&bytes);
            let _ = decode(&bytes[..at]);
        }
    }
}
