//! Snapshots: all rows, read once, cumulative; and what came between two of them.

use std::{
    collections::BTreeMap,
    mem::offset_of,
    sync::atomic::{AtomicU64, Ordering},
};

use latency_common::row::{GROUP, HistogramRow};

use crate::{kernel::mapped::Mapped, model::distribution::Distribution};

/// Distributions by row index, since tracing began. Rows without events are absent.
pub type Rows = BTreeMap<u32, Distribution>;

/// Positions of fields of [`HistogramRow`] in words.
const SUM: usize = offset_of!(HistogramRow, sum_ns) / 8;
const MAX: usize = offset_of!(HistogramRow, max_ns) / 8;
const OVER_THRESHOLD: usize = offset_of!(HistogramRow, over_threshold) / 8;
const WORK: usize = offset_of!(HistogramRow, work) / 8;
const GROUPS: usize = offset_of!(HistogramRow, groups) / 8;
const BUCKETS: usize = offset_of!(HistogramRow, buckets) / 8;

/// Brings `rows` up to what the kernel side has counted.
///
/// A row whose sum did not change is not read again. A row that recorded nothing but durations
/// of 0 ns would be missed that way, so the last reading of a run asks for `all`.
pub fn read_rows(mapped: &Mapped<HistogramRow>, rows: &mut Rows, all: bool) {
    for index in 0..mapped.len() {
        let words = mapped.words(index);
        let sum = words[SUM].load(Ordering::Relaxed);
        let known = rows.get(&(index as u32)).map_or(0, |row| row.sum_ns);
        if sum == known && !all {
            continue;
        }
        let now = read_row(words);
        if !now.buckets.is_empty() {
            rows.insert(index as u32, now);
        }
    }
}

/// What is in a row now.
fn read_row(words: &[AtomicU64]) -> Distribution {
    let word = |at: usize| words[at].load(Ordering::Relaxed);
    let mut groups = word(GROUPS);
    let mut buckets = Vec::new();
    while groups != 0 {
        let first = groups.trailing_zeros() as usize * GROUP;
        groups &= groups - 1;
        let group = &words[BUCKETS + first..][..GROUP];
        let counts =
            group.iter().enumerate().map(|(at, count)| (at, count.load(Ordering::Relaxed)));
        buckets.extend(
            counts.filter(|(_, count)| *count != 0).map(|(at, count)| ((first + at) as u16, count)),
        );
    }
    Distribution {
        buckets,
        sum_ns: word(SUM),
        max_ns: word(MAX),
        over_threshold: word(OVER_THRESHOLD),
        work: word(WORK),
    }
}

/// What `later` has that `earlier` had not.
pub fn difference(later: &Rows, earlier: &Rows) -> Rows {
    let nothing = Distribution::default();
    later
        .iter()
        .map(|(index, now)| (*index, now.since(earlier.get(index).unwrap_or(&nothing))))
        .filter(|(_, since)| !since.buckets.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use latency_common::{
        bucket::{MAX_VALUE, index_of, lowest_value},
        row::group_of,
    };

    use super::*;

    #[test]
    fn groups_with_counts_are_read() {
        let words: Vec<AtomicU64> =
            (0..size_of::<HistogramRow>() / 8).map(|_| AtomicU64::new(0)).collect();
        let values = [0, 255, 256, 1_000_003, MAX_VALUE];
        for value in values {
            let bucket = index_of(value);
            words[BUCKETS + bucket].fetch_add(3, Ordering::Relaxed);
            words[GROUPS].fetch_or(1 << group_of(bucket), Ordering::Relaxed);
        }
        words[WORK].store(7, Ordering::Relaxed);
        let row = read_row(&words);
        let read: Vec<u64> =
            row.buckets.iter().map(|(at, _)| lowest_value(usize::from(*at))).collect();
        assert_eq!(read, values.map(|value| lowest_value(index_of(value))));
        assert_eq!((row.count(), row.work), (15, 7));
    }
}
