//! Snapshots: cumulative counts of all rows, and the difference between two snapshots.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    mem::offset_of,
    sync::atomic::{AtomicU64, Ordering},
};

use latency_common::{
    bucket::lowest_value,
    row::{self, GROUP, HistogramRow},
};

use crate::{kernel::maps::mmap::MmapArray, model::distribution::Distribution};

/// Distributions by row index. Rows without events are absent.
pub type Rows = BTreeMap<u32, Distribution>;

/// Counts of rows: in total, and since the last [`RowCounters::take_fresh`].
#[derive(Default)]
pub struct RowCounters {
    total: Rows,
    fresh: Rows,
    /// What a row that was read in the middle of an event holds of it beyond its bucket: it belongs
    /// to the next interval with events, because no interval may have more stalls than events.
    held: Rows,
}

/// Positions of fields of [`HistogramRow`] in words.
const SUM: usize = offset_of!(HistogramRow, sum_ns) / 8;
const MAX: usize = offset_of!(HistogramRow, max_ns) / 8;
const OVER_THRESHOLD: usize = offset_of!(HistogramRow, over_threshold) / 8;
const WORK: usize = offset_of!(HistogramRow, work) / 8;
const GROUPS: usize = offset_of!(HistogramRow, groups) / 8;
const BUCKETS: usize = offset_of!(HistogramRow, buckets) / 8;

impl RowCounters {
    /// Reads the counts of the kernel side.
    ///
    /// A row whose sum did not change is skipped. This would miss a row that recorded only
    /// durations of 0 ns, so the last reading of a run reads `all`.
    pub fn read(&mut self, mapped: &MmapArray<HistogramRow>, all: bool) {
        for index in 0..mapped.len() {
            let words = mapped.words(index);
            let sum = words[SUM].load(Ordering::Relaxed);
            let known = self.total.get(&(index as u32));
            if sum == known.map_or(0, |row| row.sum_ns) && !all {
                continue;
            }
            let now = read_row(words, known.map_or(0, |row| row.buckets.len()));
            self.put(index as u32, now);
        }
    }

    /// Sets the total counts of the row at `index`.
    pub fn put(&mut self, index: u32, now: Distribution) {
        if now.buckets.is_empty() {
            return;
        }
        let total = self.total.entry(index).or_default();
        let mut since = now.since(total);
        *total = now;
        if let Some(held) = self.held.remove(&index) {
            since.add(&held);
        }
        let excess = since.over_threshold.saturating_sub(since.count());
        if since.buckets.is_empty() {
            if since.sum_ns > 0 || since.over_threshold > 0 || since.work > 0 {
                self.held.insert(index, since);
            }
            return;
        }
        if excess > 0 {
            since.over_threshold -= excess;
            self.held.insert(index, Distribution { over_threshold: excess, ..Default::default() });
        }
        match self.fresh.entry(index) {
            Entry::Vacant(entry) => {
                entry.insert(since);
            }
            Entry::Occupied(mut entry) => entry.get_mut().add(&since),
        }
    }

    /// All counts since tracing started.
    pub fn total(&self) -> &Rows {
        &self.total
    }

    /// The counts since the last call.
    pub fn take_fresh(&mut self) -> Rows {
        std::mem::take(&mut self.fresh)
    }

    /// Returns taken counts that could not be used, for the next [`Self::take_fresh`].
    pub fn put_back(&mut self, rows: Rows) {
        for (index, row) in rows {
            self.fresh.entry(index).or_default().add(&row);
        }
    }
}

/// Reads a row; `used` buckets were in use before.
fn read_row(words: &[AtomicU64], used: usize) -> Distribution {
    let word = |at: usize| words[at].load(Ordering::Relaxed);
    // An event is counted in its bucket first, and as a stall later: in the other order here, there
    // are never more stalls than events.
    let over_threshold = words[OVER_THRESHOLD].load(Ordering::Acquire);
    let mut groups = word(GROUPS) & (u64::MAX >> (u64::BITS as usize - row::GROUPS));
    // A few more, to avoid reallocation.
    let mut buckets = Vec::with_capacity(used + used / 8);
    let mut found = [(0, 0); GROUP];
    while groups != 0 {
        let first = groups.trailing_zeros() as usize * GROUP;
        groups &= groups - 1;
        let group = &words[BUCKETS + first..][..GROUP];
        // Without a branch, of which half would be predicted wrongly.
        let mut number = 0;
        for (at, count) in group.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            found[number] = ((first + at) as u16, count);
            number += usize::from(count != 0);
        }
        buckets.extend_from_slice(&found[..number]);
    }
    // The event of the highest bucket may not have raised the maximum yet.
    let highest = buckets.last().map_or(0, |(bucket, _)| lowest_value(usize::from(*bucket)));
    let max_ns = word(MAX).max(highest);
    Distribution { buckets, sum_ns: word(SUM), max_ns, over_threshold, work: word(WORK) }
}

#[cfg(test)]
mod tests {
    use latency_common::{
        bucket::{MAX_VALUE, index_of},
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
        let row = read_row(&words, 0);
        let read: Vec<u64> =
            row.buckets.iter().map(|(at, _)| lowest_value(usize::from(*at))).collect();
        assert_eq!(read, values.map(|value| lowest_value(index_of(value))));
        assert_eq!((row.count(), row.work), (15, 7));
    }

    #[test]
    fn what_concurrent_writers_without_atomics_leave_is_read() {
        let words: Vec<AtomicU64> =
            (0..size_of::<HistogramRow>() / 8).map(|_| AtomicU64::new(0)).collect();
        words[GROUPS].store(u64::MAX, Ordering::Relaxed);
        for value in [300, 5000, MAX_VALUE] {
            words[BUCKETS + index_of(value)].store(1, Ordering::Relaxed);
            // The maximum of the later, shorter event.
            words[MAX].store(300, Ordering::Relaxed);
            let row = read_row(&words, 0);
            assert_eq!(row.max_ns, lowest_value(index_of(value)), "{value}");
        }
    }

    #[test]
    fn no_interval_has_more_stalls_than_events() {
        let row = |values: &[u64], stalls: u64| {
            let mut distribution = Distribution::default();
            values.iter().for_each(|value| distribution.record(*value, u64::MAX, 0));
            Distribution { over_threshold: stalls, ..distribution }
        };
        let mut counters = RowCounters::default();
        // Read between the bucket of an event and its count as a stall.
        counters.put(3, row(&[5, 7], 1));
        let first = counters.take_fresh();
        assert_eq!((first[&3].count(), first[&3].over_threshold), (2, 1));
        counters.put(3, row(&[5, 7], 2));
        assert!(counters.take_fresh().is_empty());
        counters.put(3, row(&[5, 7, 9], 3));
        let second = counters.take_fresh();
        assert_eq!((second[&3].count(), second[&3].over_threshold), (1, 1));
        counters.put(3, row(&[5, 7, 9, 9, 9], 4));
        let third = counters.take_fresh();
        assert_eq!((third[&3].count(), third[&3].over_threshold), (2, 2));
        assert_eq!(counters.total()[&3].over_threshold, 4);
    }

    #[test]
    fn fresh_counts_are_returned_once() {
        let of = |values: &[u64]| {
            let mut distribution = Distribution::default();
            values.iter().for_each(|value| distribution.record(*value, 1000, 0));
            distribution
        };
        let mut counters = RowCounters::default();
        counters.put(3, of(&[5]));
        counters.put(3, of(&[5, 7, 7]));
        counters.put(4, Distribution::default());
        assert_eq!(counters.take_fresh(), Rows::from([(3, of(&[5, 7, 7]))]));
        counters.put(3, of(&[5, 7, 7]));
        assert!(counters.take_fresh().is_empty());
        counters.put(3, of(&[5, 7, 7, 9]));
        assert_eq!(counters.take_fresh(), Rows::from([(3, of(&[9]))]));
        assert_eq!(counters.total(), &Rows::from([(3, of(&[5, 7, 7, 9]))]));
    }
}
