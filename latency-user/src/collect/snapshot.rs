//! Snapshots: cumulative counts of all rows, and what was counted between two snapshots.

use std::collections::BTreeMap;

use latency_common::row::HistogramRow;

use super::known_row::{AT_SUM, Found, KnownRow};
use crate::{kernel::maps::mmap::MmapArray, model::distribution::Distribution};

/// Distributions by row index. Rows without events are absent.
pub type Rows = BTreeMap<u32, Distribution>;

/// Counts of rows: in total, and since the last [`RowCounters::take_fresh`].
#[derive(Default)]
pub struct RowCounters {
    /// By row index.
    known: Vec<KnownRow>,
    found: Box<Found>,
    fresh: Rows,
    /// What a row that was read in the middle of an event holds of it beyond its bucket: it belongs
    /// to the next interval with events, because no interval may have more stalls than events.
    held: Rows,
}

impl RowCounters {
    /// Reads the counts of the kernel side.
    ///
    /// A row whose sum did not change is skipped. This would miss a row that recorded only
    /// durations of 0 ns, so the last reading of a run reads `all`.
    pub fn read(&mut self, mapped: &MmapArray<HistogramRow>, all: bool) {
        self.known.resize_with(mapped.len(), KnownRow::default);
        let mut fresh = Vec::new();
        for index in 0..mapped.len() {
            let known = &mut self.known[index];
            if all || mapped.word(index, AT_SUM) != known.sums.sum_ns {
                let since = known.read(mapped.words(index), &mut self.found);
                fresh.extend(self.settle(index as u32, since));
            }
        }
        self.add_fresh(fresh);
    }

    /// Sets the total counts of the row at `index`.
    pub fn put(&mut self, index: u32, now: &Distribution) {
        let at = index as usize;
        if self.known.len() <= at {
            self.known.resize_with(at + 1, KnownRow::default);
        }
        let since = self.known[at].set(now, &mut self.found);
        let fresh = self.settle(index, since);
        self.add_fresh(fresh.into_iter().collect());
    }

    /// Of what a reading of the row at `index` found to be new, what belongs to this interval.
    fn settle(&mut self, index: u32, mut since: Distribution) -> Option<(u32, Distribution)> {
        if let Some(held) = self.held.remove(&index) {
            since.add(&held);
        }
        let excess = match since.over_threshold {
            0 => 0,
            stalls => stalls.saturating_sub(since.count()),
        };
        if since.buckets.is_empty() {
            if since.sum_ns > 0 || since.over_threshold > 0 || since.work > 0 {
                self.held.insert(index, since);
            }
            return None;
        }
        if excess > 0 {
            since.over_threshold -= excess;
            self.held.insert(index, Distribution { over_threshold: excess, ..Default::default() });
        }
        Some((index, since))
    }

    /// Adds `rows`, ascending. Building a map of them is faster than inserting each.
    fn add_fresh(&mut self, rows: Vec<(u32, Distribution)>) {
        if self.fresh.is_empty() {
            self.fresh = rows.into_iter().collect();
            return;
        }
        for (index, row) in rows {
            self.fresh.entry(index).or_default().add(&row);
        }
    }

    /// Each row that was read, by index.
    pub fn known(&self) -> impl Iterator<Item = (u32, &KnownRow)> {
        (0..).zip(&self.known)
    }

    /// The row at `index`, if it was read.
    pub fn row(&self, index: u32) -> Option<&KnownRow> {
        self.known.get(index as usize)
    }

    /// All counts since tracing started.
    pub fn total(&self) -> Rows {
        let rows = self.known().map(|(index, row)| (index, row.total()));
        rows.filter(|(_, row)| !row.buckets.is_empty()).collect()
    }

    /// The counts since the last call.
    pub fn take_fresh(&mut self) -> Rows {
        std::mem::take(&mut self.fresh)
    }

    /// Returns taken counts that could not be used, for the next [`Self::take_fresh`].
    pub fn put_back(&mut self, rows: Rows) {
        self.add_fresh(rows.into_iter().collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_interval_has_more_stalls_than_events() {
        let row = |values: &[u64], stalls: u64| {
            let mut distribution = Distribution::default();
            values.iter().for_each(|value| distribution.record(*value, u64::MAX, 0));
            Distribution { over_threshold: stalls, ..distribution }
        };
        let mut counters = RowCounters::default();
        // Read between the bucket of an event and its count as a stall.
        counters.put(3, &row(&[5, 7], 1));
        let first = counters.take_fresh();
        assert_eq!((first[&3].count(), first[&3].over_threshold), (2, 1));
        counters.put(3, &row(&[5, 7], 2));
        assert!(counters.take_fresh().is_empty());
        counters.put(3, &row(&[5, 7, 9], 3));
        let second = counters.take_fresh();
        assert_eq!((second[&3].count(), second[&3].over_threshold), (1, 1));
        counters.put(3, &row(&[5, 7, 9, 9, 9], 4));
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
        counters.put(3, &of(&[5]));
        counters.put(3, &of(&[5, 7, 7]));
        counters.put(4, &Distribution::default());
        assert_eq!(counters.take_fresh(), Rows::from([(3, of(&[5, 7, 7]))]));
        counters.put(3, &of(&[5, 7, 7]));
        assert!(counters.take_fresh().is_empty());
        counters.put(3, &of(&[5, 7, 7, 9]));
        assert_eq!(counters.take_fresh(), Rows::from([(3, of(&[9]))]));
        assert_eq!(counters.total(), Rows::from([(3, of(&[5, 7, 7, 9]))]));
    }
}
