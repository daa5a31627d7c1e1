//! Encodes histograms as HdrHistogram's V2 does, deflated or in a deflate stream that stores them.
//!
//! The `hdrhistogram` crate encodes the same bytes, but from an array of all counters, and with a new
//! compressor each time: on a large machine, most of the time of an interval went into clearing both.

use anyhow::{Context, Result, ensure};
use flate2::{Compress, Compression, FlushCompress, Status};
use latency_common::bucket::{MAX_VALUE, SIGNIFICANT_DIGITS};

use crate::model::distribution::Distribution;

/// Cookies of plain and deflated histograms with counters of variable length.
const PLAIN: u32 = 0x1c84_9303 | 0x10;
const DEFLATED: u32 = 0x1c84_9304 | 0x10;

/// A cookie and the length of what follows it.
const HEAD: usize = 8;

/// Bytes before the counters.
const HEADER: usize = 40;

/// A zlib stream for fast compression, and its only block: stored.
const STORED: [u8; 3] = [0x78, 0x01, 0x01];

/// Compresses histograms, and keeps the memory that this takes.
pub(super) struct Deflater {
    /// `None`: they are stored.
    compress: Option<Compress>,
    plain: Vec<u8>,
}

impl Deflater {
    /// Compresses.
    pub(super) fn new() -> Self {
        let compress = Some(Compress::new(Compression::fast(), true));
        Self { compress, plain: Vec::new() }
    }

    /// Stores: about half again as many bytes, for a small part of the time.
    pub(super) fn storing() -> Self {
        Self { compress: None, plain: Vec::new() }
    }

    /// The deflated histogram.
    ///
    /// # Errors
    ///
    /// When a count is above 2^63 - 1.
    pub(super) fn deflate(&mut self, distribution: &Distribution) -> Result<Vec<u8>> {
        encode(distribution, &mut self.plain)?;
        // More than zlib's own bound, so that one call is enough.
        let most = self.plain.len() + self.plain.len() / 1000 + 64;
        let mut bytes = Vec::with_capacity(HEAD + most);
        bytes.extend(DEFLATED.to_be_bytes());
        bytes.extend([0; 4]);
        match &mut self.compress {
            Some(compress) => {
                compress.reset();
                let status =
                    compress.compress_vec(&self.plain, &mut bytes, FlushCompress::Finish)?;
                ensure!(status == Status::StreamEnd, "a histogram does not fit into {most} bytes");
            }
            None => store(&self.plain, &mut bytes)?,
        }
        let length = (bytes.len() - HEAD) as u32;
        bytes[4..HEAD].copy_from_slice(&length.to_be_bytes());
        Ok(bytes)
    }
}

/// A zlib stream with one stored block (RFC 1950, RFC 1951).
fn store(plain: &[u8], bytes: &mut Vec<u8>) -> Result<()> {
    let length = u16::try_from(plain.len()).context("a histogram is longer than a block")?;
    bytes.extend(STORED);
    bytes.extend(length.to_le_bytes());
    bytes.extend((!length).to_le_bytes());
    bytes.extend(plain);
    // Adler-32. The sums of one block fit.
    let (mut a, mut b) = (1u64, 0u64);
    for byte in plain {
        a += u64::from(*byte);
        b += a;
    }
    bytes.extend(((b % 65_521) as u16).to_be_bytes());
    bytes.extend(((a % 65_521) as u16).to_be_bytes());
    Ok(())
}

/// A header, then each counter up to the last that is not 0.
fn encode(distribution: &Distribution, bytes: &mut Vec<u8>) -> Result<()> {
    bytes.clear();
    bytes.extend(PLAIN.to_be_bytes());
    // The length, known at the end; the offset of normalized indices.
    bytes.extend([0; 8]);
    bytes.extend(u32::from(SIGNIFICANT_DIGITS).to_be_bytes());
    bytes.extend(1u64.to_be_bytes());
    bytes.extend(MAX_VALUE.to_be_bytes());
    bytes.extend(1f64.to_be_bytes());
    let mut next = 0;
    for &(index, count) in distribution.buckets.iter().filter(|(_, count)| *count > 0) {
        match i64::from(index) - next {
            0 => {}
            1 => number(0, bytes),
            zeros => number(-zeros, bytes),
        }
        number(i64::try_from(count).context("a count is above 2^63 - 1")?, bytes);
        next = i64::from(index) + 1;
    }
    if next == 0 {
        number(0, bytes);
    }
    let length = (bytes.len() - HEADER) as u32;
    bytes[4..HEAD].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// A counter, or how many of them are 0, as a negative number: zigzag, then seven bits a byte, and
/// all eight in the ninth.
fn number(number: i64, bytes: &mut Vec<u8>) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    for _ in 0..8 {
        if rest < 0x80 {
            bytes.push(rest as u8);
            return;
        }
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
    use latency_common::bucket::BUCKETS;
    use proptest::prelude::*;

    use super::*;

    fn check(buckets: Vec<(u16, u64)>) {
        let distribution = Distribution { buckets, ..Distribution::default() };
        let histogram = distribution.histogram();
        let mut theirs = Vec::new();
        V2Serializer::new().serialize(&histogram, &mut theirs).unwrap();
        let mut ours = Vec::new();
        encode(&distribution, &mut ours).unwrap();
        assert_eq!(ours, theirs);
        let mut deflaters = [Deflater::new(), Deflater::storing()];
        // The second time with a compressor that was used.
        for number in [0, 1, 0, 1] {
            let bytes = deflaters[number].deflate(&distribution).unwrap();
            let back = Deserializer::new().deserialize::<u64, _>(&mut &bytes[..]).unwrap();
            assert_eq!(back, histogram);
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_library() {
        check(vec![]);
        check(vec![(0, 1)]);
        check(vec![(1, 1)]);
        check(vec![(2, 1), (3, 63), (4, 64), (6, 8191), (9, 8192), (3839, i64::MAX as u64)]);
        check((0..BUCKETS as u16).map(|index| (index, u64::from(index) * 977 + 1)).collect());
    }

    #[test]
    fn a_count_that_the_format_does_not_have_is_refused() {
        let buckets = vec![(7, u64::MAX)];
        let distribution = Distribution { buckets, ..Distribution::default() };
        assert!(encode(&distribution, &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn any_distribution_gives_the_bytes_of_the_library(
            buckets in prop::collection::btree_map(0..BUCKETS as u16, 1..=i64::MAX as u64, 0..300),
            shift in 0..63u32,
        ) {
            let small = |count: u64| (count >> shift).max(1);
            check(buckets.into_iter().map(|(index, count)| (index, small(count))).collect());
        }
    }
}
