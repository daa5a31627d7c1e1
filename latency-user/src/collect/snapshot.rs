//! Snapshots: all rows, read once, cumulative; and what came between two of them.

use std::collections::BTreeMap;

use latency_common::row::HistogramRow;

use crate::{kernel::mapped::Mapped, model::distribution::Distribution};

/// Distributions by row index, since tracing began. Rows without events are absent.
pub type Rows = BTreeMap<u32, Distribution>;

/// Position of `HistogramRow::sum_ns` in words.
const SUM_WORD: usize = core::mem::offset_of!(HistogramRow, sum_ns) / 8;

/// Brings `rows` up to what the kernel side has counted.
///
/// A row whose sum did not change is not read again. A row that recorded nothing but durations
/// of 0 ns would be missed that way, so the last reading of a run asks for `all`.
pub fn read_rows(mapped: &Mapped<HistogramRow>, rows: &mut Rows, all: bool) {
    for index in 0..mapped.len() {
        let sum = mapped.word(index, SUM_WORD);
        let known = rows.get(&(index as u32)).map_or(0, |row| row.sum_ns);
        if sum == known && !all {
            continue;
        }
        let now = Distribution::from_row(&mapped.copy(index));
        if !now.buckets.is_empty() {
            rows.insert(index as u32, now);
        }
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
