//! Decodes the histograms of interval logs: HdrHistogram V0, V1 and V2, plain or deflated.
//!
//! The `hdrhistogram` crate decodes them too, but into an array of all counters, and trusts the
//! lengths in the file: a few wrong bytes make it allocate gigabytes. This decoder allocates only
//! what the data fills.

use std::io::Read;

use flate2::read::ZlibDecoder;
use latency_common::bucket::{MAX_VALUE, index_of};
use thiserror::Error;

use crate::model::distribution::Distribution;

/// Cookies of plain and deflated histograms, by version of the format.
const COOKIES: [(Version, u32, u32); 3] = [
    (Version::V0, 0x1c84_9308, 0x1c84_9309),
    (Version::V1, 0x1c84_9301, 0x1c84_9302),
    (Version::V2, 0x1c84_9303, 0x1c84_9304),
];
/// Bits of a cookie that are the size of a counter in bytes, before V2.
const COUNTER_SIZE: u32 = 0xe0;
/// Masks those bits, and the one that V2 sets beside them, out of a cookie.
const COOKIE_MASK: u32 = !0xf0;

/// The longest header with its cookie, bytes.
const HEADER: usize = 40;

/// The longest counter, bytes.
const COUNTER: u64 = 9;

/// The most counters of any valid histogram: 64 octaves of 2^17 half-buckets.
const MAX_COUNTERS: u64 = 64 * (1 << 17);

/// Version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// Of jHiccup before 2.0.3, with counters of fixed size.
    V0,
    /// With counters of fixed size.
    V1,
    /// With counters of variable size.
    V2,
}

/// Why a histogram cannot be decoded.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The data ends early, or does not inflate.
    #[error("histogram is cut short or does not inflate")]
    Short,
    /// Another format, or none.
    #[error("no HdrHistogram data (V0, V1 or V2): cookie {0:#010x}")]
    Cookie(u32),
    /// Bytes follow the histogram.
    #[error("{0} bytes follow the histogram on its line, such as a second one")]
    Trailing(usize),
    /// Data of an older version of the format is damaged.
    #[error("HdrHistogram {0} encoding: {1}")]
    Old(&'static str, Box<DecodeError>),
    /// The header has values that no histogram can have, or features that no writer uses.
    #[error("histogram header has {0}")]
    Header(&'static str),
    /// The histograms of the file inflate to more than [`Budget`] allows.
    #[error("more deflated data than any recording has")]
    TooMuch,
    /// The counters do not fit their header.
    #[error("histogram has {0}")]
    Counters(&'static str),
}

/// How much the histograms of a file may contain: without it, small files take minutes, or all the
/// memory.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Bytes that they inflate to.
    inflated: u64,
    /// Buckets with counts.
    buckets: u64,
}

impl Default for Budget {
    /// Enough for a few of the longest histograms.
    fn default() -> Self {
        Self { inflated: 256 << 20, buckets: 4 << 20 }
    }
}

impl Budget {
    /// What a line of this many bytes adds. Even empty counters of eight bytes deflate less, except
    /// in the longest histograms.
    const PER_BYTE: u64 = 100;

    /// Buckets with counts that a line of this many bytes adds: a reader's memory stays in
    /// proportion to the file.
    const BUCKETS_PER_BYTE: u64 = 8;

    /// Allows for another line.
    pub fn add_line(&mut self, bytes: usize) {
        self.inflated = self.inflated.saturating_add(bytes as u64 * Self::PER_BYTE);
        self.buckets = self.buckets.saturating_add(bytes as u64 * Self::BUCKETS_PER_BYTE);
    }
}

/// A decoded histogram.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Counts in our buckets. The sum is that of the middles of the histogram's buckets, the
    /// maximum the upper end of its highest bucket.
    pub distribution: Distribution,
    /// Whether the histogram's buckets were ours, so that nothing was rounded a second time.
    pub same_buckets: bool,
    /// The upper end of its highest bucket, in the unit of the histogram.
    pub highest: u64,
    /// Values above [`MAX_VALUE`]: they are in our last bucket.
    pub above: u64,
}

/// Decodes one histogram whose values are in units of `unit_ns`, within the budget of its file.
///
/// # Errors
///
/// When `bytes` is not exactly one histogram with integer values.
pub fn decode(bytes: &[u8], unit_ns: u64, budget: &mut Budget) -> Result<Decoded, DecodeError> {
    let (cookie, rest) = word(bytes)?;
    let is_version = |(_, plain, deflated): &&(Version, u32, u32)| {
        [*plain, *deflated].contains(&(cookie & COOKIE_MASK))
    };
    let (version, plain, _) = COOKIES.iter().find(is_version).ok_or(DecodeError::Cookie(cookie))?;
    let decoded = match cookie & COOKIE_MASK == *plain {
        true => decode_plain(*version, cookie, rest, unit_ns),
        false => decode_deflated(rest, unit_ns, budget),
    };
    let decoded = decoded.and_then(|decoded| {
        let buckets = decoded.distribution.buckets.len() as u64;
        budget.buckets = budget.buckets.checked_sub(buckets).ok_or(DecodeError::TooMuch)?;
        Ok(decoded)
    });
    decoded.map_err(|error| match version {
        Version::V0 => DecodeError::Old("V0", Box::new(error)),
        Version::V1 => DecodeError::Old("V1", Box::new(error)),
        Version::V2 => error,
    })
}

fn decode_deflated(rest: &[u8], unit_ns: u64, budget: &mut Budget) -> Result<Decoded, DecodeError> {
    let (length, rest) = word(rest)?;
    let deflated = rest.get(..length as usize).ok_or(DecodeError::Short)?;
    nothing_follows(&rest[length as usize..])?;
    let inflated = inflate(deflated, budget.inflated)?;
    budget.inflated -= inflated.len() as u64;
    let (cookie, rest) = word(&inflated)?;
    let version = COOKIES.iter().find(|(_, plain, _)| *plain == cookie & COOKIE_MASK);
    let (version, ..) = version.ok_or(DecodeError::Cookie(cookie))?;
    decode_plain(*version, cookie, rest, unit_ns)
}

/// Inflates the header, and then no more than the counters that the header allows, nor than `most`.
fn inflate(deflated: &[u8], most: u64) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = ZlibDecoder::new(deflated);
    let mut inflated = Vec::new();
    let mut read = |inflated: &mut Vec<u8>, most: u64| {
        decoder.by_ref().take(most).read_to_end(inflated).map_err(|_| DecodeError::Short)
    };
    read(&mut inflated, HEADER as u64)?;
    let (cookie, rest) = word(&inflated)?;
    let counters = match cookie & COOKIE_MASK {
        0x1c84_9308 => MAX_COUNTERS, // Its header is shorter, and has no length.
        _ => Header::parse(Version::V2, rest)?.0.layout()?.counters(),
    };
    read(&mut inflated, (counters * COUNTER + 1).min(most))?;
    if inflated.len() as u64 > most { Err(DecodeError::TooMuch) } else { Ok(inflated) }
}

/// Bytes of zero are padding.
fn nothing_follows(bytes: &[u8]) -> Result<(), DecodeError> {
    match bytes.iter().all(|byte| *byte == 0) {
        true => Ok(()),
        false => Err(DecodeError::Trailing(bytes.len())),
    }
}

/// The fields before the counters.
struct Header {
    /// Length of the counters, bytes; `None`: all that follow.
    payload: Option<usize>,
    digits: u32,
    lowest: u64,
}

impl Header {
    /// Parses the header, after its cookie. Returns it and the counters.
    fn parse(version: Version, bytes: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        if version == Version::V0 {
            let (digits, bytes) = word(bytes)?;
            let (lowest, bytes) = double_word(bytes)?;
            let (_highest, bytes) = double_word(bytes)?;
            let (_total, bytes) = double_word(bytes)?;
            return Ok((Self { payload: None, digits, lowest }, bytes));
        }
        let (length, bytes) = word(bytes)?;
        let (offset, bytes) = word(bytes)?;
        let (digits, bytes) = word(bytes)?;
        let (lowest, bytes) = double_word(bytes)?;
        let (_highest, bytes) = double_word(bytes)?;
        let (ratio, bytes) = double_word(bytes)?;
        if offset != 0 {
            let what = "a normalizing offset: shifted values are not supported";
            return Err(DecodeError::Header(what));
        }
        if f64::from_bits(ratio) != 1.0 {
            let what = "a conversion ratio: only integer values are supported";
            return Err(DecodeError::Header(what));
        }
        Ok((Self { payload: Some(length as usize), digits, lowest }, bytes))
    }

    fn layout(&self) -> Result<Layout, DecodeError> {
        Layout::new(self.lowest, self.digits)
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

    /// The most counters that a histogram of this precision can have.
    fn counters(&self) -> u64 {
        u64::from(64 - self.half_magnitude + 1) << self.half_magnitude
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

fn decode_plain(
    version: Version,
    cookie: u32,
    bytes: &[u8],
    unit_ns: u64,
) -> Result<Decoded, DecodeError> {
    let (header, counters) = Header::parse(version, bytes)?;
    let layout = header.layout()?;
    let length = header.payload.unwrap_or(counters.len());
    let mut counters = Counters {
        bytes: counters.get(..length).ok_or(DecodeError::Short)?,
        size: (version != Version::V2).then_some((cookie & COUNTER_SIZE) >> 4),
    };
    nothing_follows(&bytes[header_length(version) + length..])?;
    let mut decoded = Decoded {
        same_buckets: header.digits == 2 && layout.unit_magnitude == 0 && unit_ns == 1,
        ..Decoded::default()
    };
    let mut index = 0_u64;
    while let Some(number) = counters.next()? {
        match u64::try_from(number) {
            Ok(count) => {
                if count > 0 {
                    let bounds = layout.bounds(index);
                    let bounds = bounds.ok_or(DecodeError::Counters("a counter beyond 2^64"))?;
                    add(&mut decoded, bounds, count, unit_ns)?;
                }
                index += 1;
            }
            Err(_) => {
                index = index
                    .checked_add(number.unsigned_abs())
                    .filter(|index| *index <= MAX_COUNTERS)
                    .ok_or(DecodeError::Counters("more counters than any histogram"))?;
            }
        }
    }
    Ok(decoded)
}

/// Bytes of the header after its cookie.
const fn header_length(version: Version) -> usize {
    match version {
        Version::V0 => 28,
        Version::V1 | Version::V2 => HEADER - 4,
    }
}

/// The counters. A negative one stands for as many counters of zero.
struct Counters<'a> {
    bytes: &'a [u8],
    /// Bytes of each; `None`: variable.
    size: Option<u32>,
}

impl Counters<'_> {
    fn next(&mut self) -> Result<Option<i64>, DecodeError> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        Ok(Some(match self.size {
            None => zig_zag(varint(&mut self.bytes)?),
            Some(size) => {
                let count: i64 = match size {
                    2 => i16::from_be_bytes(self.take()?).into(),
                    4 => i32::from_be_bytes(self.take()?).into(),
                    8 => i64::from_be_bytes(self.take()?),
                    _ => return Err(DecodeError::Header("counters that are not 2, 4 or 8 bytes")),
                };
                if count < 0 {
                    return Err(DecodeError::Counters("a negative counter"));
                }
                count
            }
        }))
    }

    fn take<const BYTES: usize>(&mut self) -> Result<[u8; BYTES], DecodeError> {
        let (bytes, rest) = self.bytes.split_first_chunk().ok_or(DecodeError::Short)?;
        self.bytes = rest;
        Ok(*bytes)
    }
}

/// Adds the count of a counter. Counters come in ascending order.
fn add(
    decoded: &mut Decoded,
    (lowest, highest): (u64, u64),
    count: u64,
    unit_ns: u64,
) -> Result<(), DecodeError> {
    decoded.highest = highest;
    let middle = (lowest + (highest - lowest) / 2).saturating_mul(unit_ns);
    let index = index_of(middle) as u16;
    let overflow = DecodeError::Counters("more than 2^64 counts");
    let distribution = &mut decoded.distribution;
    match distribution.buckets.last_mut() {
        Some((last, sum)) if *last == index => *sum = sum.checked_add(count).ok_or(overflow)?,
        _ => distribution.buckets.push((index, count)),
    }
    if middle > MAX_VALUE {
        decoded.above = decoded.above.saturating_add(count);
    }
    distribution.sum_ns = distribution.sum_ns.saturating_add(middle.saturating_mul(count));
    distribution.max_ns = highest.saturating_mul(unit_ns);
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
    fn what_inflates_without_end_is_refused() {
        let all = Distribution::default();
        let bytes = deflated(&all.histogram());
        let mut none = Budget { inflated: 0, buckets: 0 };
        assert_eq!(decode(&bytes, 1, &mut none), Err(DecodeError::TooMuch));
        none.add_line(bytes.len());
        let before = none.inflated;
        decode(&bytes, 1, &mut none).unwrap();
        assert!(none.inflated < before);
    }

    #[test]
    fn far_more_buckets_than_bytes_are_refused() {
        let buckets = (0..BUCKETS).map(|index| (index as u16, 1)).collect();
        let all = deflated(&Distribution { buckets, ..Distribution::default() }.histogram());
        // They deflate to a few bytes.
        assert!(BUCKETS as u64 > all.len() as u64 * Budget::BUCKETS_PER_BYTE, "{}", all.len());
        let mut budget = Budget::default();
        let mut lines = 0;
        while decode(&all, 1, &mut budget).is_ok() {
            budget.add_line(all.len());
            lines += 1;
            assert!(lines < 2000, "no end");
        }
        assert!(lines > 1000, "{lines}");
    }

    #[test]
    fn every_bucket_comes_back_in_place() {
        let buckets = (0..BUCKETS).map(|index| (index as u16, 1 + index as u64 * 7919)).collect();
        let all = Distribution { buckets, ..Distribution::default() };
        let decoded = decode(&deflated(&all.histogram()), 1, &mut Budget::default()).unwrap();
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
            let decoded = decode(&bytes, 1, &mut Budget::default()).unwrap();
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
        assert_eq!(decode(b"", 1, &mut Budget::default()), Err(DecodeError::Short));
        assert_eq!(
            decode(b"HIST0000", 1, &mut Budget::default()),
            Err(DecodeError::Cookie(0x4849_5354))
        );
        let mut histogram = Histogram::<u64>::new_with_max(1000, 2).unwrap();
        histogram.record(7).unwrap();
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&histogram, &mut bytes).unwrap();
        let last = bytes.len() - 1;
        assert_eq!(decode(&bytes[..last], 1, &mut Budget::default()), Err(DecodeError::Short));
        // A payload length of 4 GiB: the data is missing, and nothing of that size is allocated.
        let mut long = bytes.clone();
        long[4..8].fill(0xff);
        assert_eq!(decode(&long, 1, &mut Budget::default()), Err(DecodeError::Short));
        bytes[15] = 9;
        let digits = DecodeError::Header("a precision that is not 1 to 5 digits");
        assert_eq!(decode(&bytes, 1, &mut Budget::default()), Err(digits));
    }

    #[test]
    fn what_follows_a_histogram_is_reported() {
        let mut histogram = Histogram::<u64>::new_with_max(1000, 2).unwrap();
        histogram.record(7).unwrap();
        let one = deflated(&histogram);
        assert_eq!(
            decode(&[&one[..], &[0; 5]].concat(), 1, &mut Budget::default())
                .unwrap()
                .distribution
                .count(),
            1
        );
        let two = [&one[..], &one[..]].concat();
        assert_eq!(decode(&two, 1, &mut Budget::default()), Err(DecodeError::Trailing(one.len())));
    }

    #[test]
    fn data_that_inflates_beyond_any_histogram_is_cut_off() {
        let mut plain = Vec::new();
        V2Serializer::new()
            .serialize(&Histogram::<u64>::new_with_max(1000, 2).unwrap(), &mut plain)
            .unwrap();
        plain.resize(64 << 20, 0);
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, &plain).unwrap();
        let inflated = inflate(&encoder.finish().unwrap(), u64::MAX).unwrap();
        assert!(inflated.len() < 100_000, "{}", inflated.len());
    }

    #[test]
    fn values_above_the_last_bucket_are_counted_and_keep_their_maximum() {
        let mut histogram = Histogram::<u64>::new_with_max(1 << 40, 2).unwrap();
        for value in [1000, 70_000_000_000, 100_000_000_000] {
            histogram.record(value).unwrap();
        }
        let decoded = decode(&deflated(&histogram), 1, &mut Budget::default()).unwrap();
        assert_eq!((decoded.above, decoded.distribution.count()), (2, 3));
        assert_eq!(decoded.distribution.max_ns, histogram.max());
    }

    proptest! {
        #[test]
        fn counts_read_as_hdrhistogram_wrote_them(
            counts in proptest::collection::btree_map(0..BUCKETS as u16, 1..u64::MAX >> 13, 0..50)
        ) {
            let buckets: Vec<_> = counts.into_iter().collect();
            let distribution = Distribution { buckets, ..Distribution::default() };
            let bytes = deflated(&distribution.histogram());
            let decoded = decode(&bytes, 1, &mut Budget::default()).unwrap();
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
            let _ = decode(&bytes, 1, &mut Budget::default());
            let _ = decode(&bytes[..at], 1, &mut Budget::default());
        }
    }
}
