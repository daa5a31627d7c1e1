//! One row as it was read last: tells what has been counted since.

use std::{
    collections::BTreeMap,
    mem::offset_of,
    sync::atomic::{AtomicU64, Ordering},
};

use latency_common::{
    bucket::{self, lowest_value},
    row::{GROUP, GROUPS, HistogramRow, group_of},
};

use crate::model::distribution::{Distribution, highest_value};

/// Counts of a group of buckets, two in a word. The kernel side is compiled for machines that store
/// the lower half of a word first.
type Group = [u64; GROUP_WORDS];

/// Words of a group.
const GROUP_WORDS: usize = GROUP / 2;

/// Cumulative counts of a row.
///
/// Counts are kept as the kernel side keeps them, so that two are compared at a time.
#[derive(Clone, Debug, Default)]
pub struct KnownRow {
    /// All but the buckets.
    pub sums: Sums,
    /// Bit `i`: group `i` is in `counts`.
    groups: u64,
    /// Groups with counts, ascending.
    counts: Vec<Group>,
    /// How often the count of a bucket has started again from 0.
    laps: BTreeMap<u16, u64>,
}

/// Space for the buckets that a reading finds changed, to be used again by the next.
pub struct Found([(u16, u64); bucket::BUCKETS]);

/// The parts of a row that are not buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Sum of all durations, ns.
    pub sum_ns: u64,
    /// Largest duration, ns.
    pub max_ns: u64,
    /// Durations at or above the threshold of the run.
    pub over_threshold: u64,
    /// Packets of NAPI polls.
    pub work: u64,
}

/// Position of [`HistogramRow::sum_ns`] in words.
pub const AT_SUM: usize = offset_of!(HistogramRow, sum_ns) / 8;
// Positions of the other fields.
const AT_MAX: usize = offset_of!(HistogramRow, max_ns) / 8;
const AT_OVER_THRESHOLD: usize = offset_of!(HistogramRow, over_threshold) / 8;
const AT_WORK: usize = offset_of!(HistogramRow, work) / 8;
const AT_GROUPS: usize = offset_of!(HistogramRow, groups) / 8;
const AT_BUCKETS: usize = offset_of!(HistogramRow, buckets) / 8;

impl KnownRow {
    /// Reads the row in `words`, to which the kernel side keeps adding, and returns what was
    /// counted since the last reading. A bucket must not have had 2^31 events meanwhile.
    pub fn read(&mut self, words: &[AtomicU64], found: &mut Found) -> Distribution {
        let word = |at: usize| words[at].load(Ordering::Relaxed);
        // An event is counted in its bucket first, and as a stall later: in the other order here,
        // there are never more stalls than events.
        let over_threshold = words[AT_OVER_THRESHOLD].load(Ordering::Acquire);
        let groups = word(AT_GROUPS) & (u64::MAX >> (u64::BITS as usize - GROUPS));
        let buckets = self.advance(groups, &words[AT_BUCKETS..], found);
        let sums = Sums {
            sum_ns: word(AT_SUM),
            max_ns: word(AT_MAX),
            over_threshold,
            work: word(AT_WORK),
        };
        self.since(buckets, sums)
    }

    /// Takes over `now`, a later state of the row, and returns what was counted since.
    pub fn set(&mut self, now: &Distribution, found: &mut Found) -> Distribution {
        let mut words = vec![0; size_of::<HistogramRow>() / 8];
        words[AT_SUM] = now.sum_ns;
        words[AT_MAX] = now.max_ns;
        words[AT_OVER_THRESHOLD] = now.over_threshold;
        words[AT_WORK] = now.work;
        for &(bucket, count) in &now.buckets {
            let bucket = usize::from(bucket);
            words[AT_GROUPS] |= 1 << group_of(bucket);
            words[AT_BUCKETS + bucket / 2] |= u64::from(count as u32) << half_of(bucket);
        }
        let words: Vec<AtomicU64> = words.into_iter().map(AtomicU64::new).collect();
        self.read(&words, found)
    }

    /// Everything that was counted.
    pub fn total(&self) -> Distribution {
        let Sums { sum_ns, max_ns, over_threshold, work } = self.sums;
        let buckets = self.buckets().filter(|(_, count)| *count > 0).collect();
        Distribution { buckets, sum_ns, max_ns, over_threshold, work }
    }

    /// Number of durations.
    pub fn count(&self) -> u64 {
        let counts = self.counts.as_flattened().iter();
        let counts: u64 =
            counts.map(|word| (word & u64::from(u32::MAX)) + (word >> u32::BITS)).sum();
        counts + (self.laps.values().sum::<u64>() << u32::BITS)
    }

    /// Each known bucket and its count.
    fn buckets(&self) -> impl Iterator<Item = (u16, u64)> {
        let groups = numbers(self.groups).zip(&self.counts);
        groups.flat_map(move |(number, group)| {
            (0..GROUP).map(move |at| {
                let bucket = (number * GROUP + at) as u16;
                let count = (group[at / 2] >> half_of(at)) as u32;
                let laps = self.laps.get(&bucket).copied().unwrap_or(0);
                (bucket, (laps << u32::BITS) + u64::from(count))
            })
        })
    }

    /// Reads `groups`, whose counts are in `words`, and returns the buckets that have more events
    /// than before, and how many more.
    fn advance(
        &mut self,
        groups: u64,
        words: &[AtomicU64],
        Found(found): &mut Found,
    ) -> Vec<(u16, u64)> {
        if groups & !self.groups != 0 {
            self.add_groups(groups);
        }
        let mut length = 0;
        for (number, known) in numbers(self.groups).zip(&mut self.counts) {
            let words = &words[number * GROUP_WORDS..][..GROUP_WORDS];
            // No branches, nor below on whether a count changed: they would often be mispredicted.
            let words_and_known = words.iter().zip(&*known).enumerate();
            let changed = words_and_known.fold(0, |bits, (at, (word, known))| {
                bits | u64::from(word.load(Ordering::Relaxed) != *known) << at
            });
            for at in numbers(changed) {
                let now = words[at].load(Ordering::Relaxed);
                let before = std::mem::replace(&mut known[at], now);
                for half in 0..2 {
                    let bucket = (number * GROUP + 2 * at + half) as u16;
                    let count = |word: u64| (word >> half_of(half)) as u32;
                    let difference = count(now).wrapping_sub(count(before));
                    found[length] = (bucket, u64::from(difference));
                    length += usize::from(difference != 0);
                    if difference > u32::MAX / 2 {
                        // No writer takes counts back. If one did, it would not be billions.
                        let mask = u64::from(u32::MAX) << half_of(half);
                        known[at] = (known[at] & !mask) | (before & mask);
                        length -= 1;
                    } else if count(now) < count(before) {
                        *self.laps.entry(bucket).or_default() += 1;
                    }
                }
            }
        }
        found[..length].to_vec()
    }

    /// Makes space for the counts of `groups`.
    fn add_groups(&mut self, groups: u64) {
        for (at, number) in numbers(self.groups | groups).enumerate() {
            if self.groups & (1 << number) == 0 {
                self.counts.insert(at, [0; GROUP_WORDS]);
            }
        }
        self.groups |= groups;
    }

    /// What was counted since the last reading: in `buckets`, and by the difference to `now`.
    ///
    /// The maximum is exact if it has risen since then; otherwise it is the upper end of the
    /// highest bucket, but never above the maximum of `now`.
    fn since(&mut self, buckets: Vec<(u16, u64)>, now: Sums) -> Distribution {
        let before = self.sums;
        let highest = buckets.last().map(|(bucket, _)| *bucket);
        // The event of the highest bucket may not have raised the maximum yet.
        let least = highest.map_or(0, |bucket| lowest_value(bucket.into()));
        let max_ns = now.max_ns.max(least).max(before.max_ns);
        self.sums = Sums { max_ns, ..now };
        Distribution {
            buckets,
            sum_ns: now.sum_ns.saturating_sub(before.sum_ns),
            max_ns: match max_ns > before.max_ns {
                true => max_ns,
                false => highest.map_or(0, |bucket| highest_value(bucket).min(max_ns)),
            },
            over_threshold: now.over_threshold.saturating_sub(before.over_threshold),
            work: now.work.saturating_sub(before.work),
        }
    }
}

impl Default for Found {
    fn default() -> Self {
        Self([(0, 0); bucket::BUCKETS])
    }
}

/// By how many bits the count of `bucket` is shifted in its word.
fn half_of(bucket: usize) -> u32 {
    bucket as u32 % 2 * u32::BITS
}

/// The numbers of the bits that are set, ascending.
fn numbers(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let number = bits.trailing_zeros() as usize;
        let is_set = bits != 0;
        bits &= bits.wrapping_sub(1);
        is_set.then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use latency_common::bucket::{MAX_VALUE, index_of};

    use super::*;

    /// A row as the kernel side writes it.
    struct Written(Vec<AtomicU64>);

    impl Written {
        fn new() -> Self {
            Self((0..size_of::<HistogramRow>() / 8).map(|_| AtomicU64::new(0)).collect())
        }

        fn add(&self, ns: u64, count: u32) {
            let bucket = index_of(ns);
            let word = &self.0[AT_BUCKETS + bucket / 2];
            let before = word.load(Ordering::Relaxed);
            let (low, high) = (before as u32, (before >> 32) as u32);
            let (low, high) = match bucket % 2 {
                0 => (low.wrapping_add(count), high),
                _ => (low, high.wrapping_add(count)),
            };
            word.store(u64::from(low) | u64::from(high) << 32, Ordering::Relaxed);
            self.0[AT_GROUPS].fetch_or(1 << group_of(bucket), Ordering::Relaxed);
            self.0[AT_SUM].fetch_add(ns * u64::from(count), Ordering::Relaxed);
            self.0[AT_MAX].fetch_max(ns, Ordering::Relaxed);
        }
    }

    fn of(values: &[u64]) -> Distribution {
        let mut distribution = Distribution::default();
        values.iter().for_each(|value| distribution.record(*value, 1_000_000, 0));
        distribution
    }

    #[test]
    fn groups_with_counts_are_read() {
        let found = &mut Found::default();
        let written = Written::new();
        let values = [0, 1, 255, 256, 1_000_003, MAX_VALUE];
        values.iter().for_each(|value| written.add(*value, 3));
        written.0[AT_WORK].store(7, Ordering::Relaxed);
        let mut row = KnownRow::default();
        let read = row.read(&written.0, found);
        let lowest: Vec<u64> =
            read.buckets.iter().map(|(at, _)| lowest_value(usize::from(*at))).collect();
        assert_eq!(lowest, values.map(|value| lowest_value(index_of(value))));
        assert_eq!((read.count(), read.work, row.count()), (18, 7, 18));
        assert_eq!(row.total(), read);
        assert!(row.read(&written.0, found).buckets.is_empty());
    }

    #[test]
    fn only_what_was_added_is_returned() {
        let found = &mut Found::default();
        let (written, mut row) = (Written::new(), KnownRow::default());
        let mut all = Distribution::default();
        for values in [&[5, 700, 700, 3_000_000][..], &[6, 700, 2_000_000], &[90_000], &[]] {
            values.iter().for_each(|value| written.add(*value, 1));
            let mut read = row.read(&written.0, found);
            // Below the run's maximum, known to its bucket only: the next test.
            read.max_ns = of(values).max_ns;
            assert_eq!(read, Distribution { over_threshold: 0, ..of(values) });
            all.add(&read);
        }
        assert_eq!(row.total(), all);
    }

    #[test]
    fn a_maximum_is_exact_if_it_is_new() {
        let found = &mut Found::default();
        let mut row = KnownRow::default();
        let mut all = of(&[10, 3_000_000]);
        assert_eq!(row.set(&all, found).max_ns, 3_000_000);
        all.add(&of(&[2_000_000]));
        let of_interval = row.set(&all, found).max_ns;
        // 0.8 % per bucket.
        assert!((2_000_000..2_016_000).contains(&of_interval), "{of_interval}");
        all.add(&of(&[3_234_567]));
        assert_eq!(row.set(&all, found).max_ns, 3_234_567);
    }

    #[test]
    fn counts_go_on_when_a_counter_starts_again() {
        let found = &mut Found::default();
        let (written, mut row) = (Written::new(), KnownRow::default());
        let steps = 10;
        for _ in 0..steps {
            for ns in [1000, 50_000] {
                written.add(ns, 1 << 30);
            }
            written.add(7, 1);
            let read = row.read(&written.0, found);
            assert_eq!(
                read.buckets.iter().map(|(_, n)| *n).collect::<Vec<_>>(),
                [1, 1 << 30, 1 << 30]
            );
        }
        assert_eq!(row.count(), steps * ((2 << 30) + 1));
        let total = row.total();
        assert_eq!(total.count(), row.count());
        // Counters that are 0 again have counted.
        (0..6).for_each(|_| {
            written.add(1000, 1 << 30);
            row.read(&written.0, found);
        });
        assert_eq!(row.total().buckets[1].1, 16 << 30);
        let mut copy = KnownRow::default();
        assert_eq!(copy.set(&of(&[7]), found).count(), 1);
    }

    #[test]
    fn a_count_that_falls_is_no_billion_events() {
        let found = &mut Found::default();
        let mut row = KnownRow::default();
        row.set(&of(&[7, 7, 7, 5000]), found);
        assert!(row.set(&of(&[7, 7, 5000]), found).buckets.is_empty());
        assert_eq!(row.set(&of(&[7, 7, 7, 7, 5000]), found).count(), 1);
        assert_eq!(row.count(), 5);
    }

    #[test]
    fn what_concurrent_writers_without_atomics_leave_is_read() {
        let found = &mut Found::default();
        let (written, mut row) = (Written::new(), KnownRow::default());
        written.0[AT_GROUPS].store(u64::MAX, Ordering::Relaxed);
        for value in [300, 5000, MAX_VALUE] {
            written.add(value, 1);
            // The maximum of the later, shorter event.
            written.0[AT_MAX].store(300, Ordering::Relaxed);
            let read = row.read(&written.0, found);
            assert_eq!(read.max_ns, lowest_value(index_of(value)).max(300), "{value}");
            assert_eq!(row.sums.max_ns, read.max_ns);
        }
    }
}
