//! The intervals of recordings, aligned to a common grid, so that their sum keeps its course over
//! time.
//!
//! An interval belongs to the cell that its middle lies in. A cell lasts as long as the recordings in
//! it were traced there on average: events per second of a cell are the sum of those of its
//! recordings. Counts stay exact; only their times are moved, by at most half a cell and half an
//! interval.

use std::{collections::BTreeMap, time::Duration};

use crate::model::{
    distribution::Distribution,
    interval::{Interval, MergedTime},
    series::{Series, SeriesKey, attrs::QueueAttrs},
    stall::batch::StallBatch,
};

/// Distributions that are kept in memory, about: cells times series.
const MOST: u64 = 100_000;

/// Cells of one width.
pub(super) struct Grid {
    width_ms: u64,
    /// Start of the first recording, ms since the epoch.
    first_ms: u64,
    cells: BTreeMap<u64, Cell>,
    /// The last cell that the present recording had an interval in.
    last: Option<u64>,
}

#[derive(Default)]
struct Cell {
    time: MergedTime,
    series: BTreeMap<SeriesKey, (QueueAttrs, Distribution)>,
}

/// The width of cells: `interval`, doubled until the cells of that time hold no more than [`MOST`]
/// distributions. It depends on nothing but the sum, so the order of recordings does not matter.
pub(super) fn width(interval: Duration, length_ms: u64, series: usize) -> Duration {
    let mut width = interval;
    let cells = |width: Duration| length_ms / (width.as_millis() as u64).max(1) + 1;
    while cells(width).saturating_mul(series as u64) > MOST && cells(width) > 1 {
        width *= 2;
    }
    width
}

impl Grid {
    pub(super) fn new(width: Duration, first_ms: u64) -> Self {
        let width_ms = (width.as_millis() as u64).max(1);
        Self { width_ms, first_ms, cells: BTreeMap::new(), last: None }
    }

    /// The following intervals are of another recording.
    pub(super) fn next_recording(&mut self) {
        self.last = None;
    }

    /// Adds an interval of a run that started at `start_ms` since the epoch. `key` names its series.
    pub(super) fn add(
        &mut self,
        interval: &Interval<SeriesKey>,
        start_ms: u64,
        key: &dyn Fn(&SeriesKey) -> SeriesKey,
    ) {
        let start_us = start_ms * 1000 + interval.start.as_micros() as u64;
        let middle_us = start_us + interval.duration.as_micros() as u64 / 2;
        let at = middle_us / 1000 / self.width_ms;
        let cell = self.cells.entry(at).or_default();
        // In a merged recording it counts for several.
        let time = interval.merged.unwrap_or(MergedTime {
            recordings: 1,
            traced_us: interval.duration.as_micros() as u64,
        });
        cell.time.traced_us += time.traced_us;
        if self.last.replace(at) != Some(at) {
            cell.time.recordings += time.recordings;
        }
        for series in &interval.series {
            let sum = cell.series.entry(key(&series.id)).or_default();
            sum.0.add(series.attrs);
            sum.1.add(&series.distribution);
        }
    }

    /// The cells with something in them, as intervals since the first recording's start.
    pub(super) fn into_intervals(self) -> impl Iterator<Item = Interval<SeriesKey>> {
        let (width_us, first_us) = (self.width_ms * 1000, self.first_ms * 1000);
        let is_filled = |cell: &Cell| cell.time.recordings > 0 || !cell.series.is_empty();
        let cells = self.cells.into_iter().filter(move |(_, cell)| is_filled(cell));
        cells.map(move |(at, cell)| {
            let duration_us = cell.time.traced_us / cell.time.recordings.max(1);
            // Around the middle of the cell: there it is found when it is merged again.
            let centred = (at * width_us + width_us / 2).saturating_sub(duration_us / 2);
            let start_us = centred.max(first_us) - first_us;
            let series = cell.series.into_iter();
            Interval {
                start: Duration::from_micros(start_us),
                duration: Duration::from_micros(duration_us),
                series: series
                    .map(|(id, (attrs, distribution))| Series { id, attrs, distribution })
                    .collect(),
                batch: StallBatch::default(),
                steal: None,
                merged: Some(cell.time),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_widened_until_they_fit() {
        let second = Duration::from_secs(1);
        assert_eq!(width(second, 60_000, 10), second);
        assert_eq!(width(second, 86_400_000, 10), Duration::from_secs(16));
        assert_eq!(width(second, 1000, 1_000_000), Duration::from_secs(2));
        assert_eq!(width(Duration::from_secs(10), 60_000, 10), Duration::from_secs(10));
    }

    #[test]
    fn rates_of_recordings_add_up() {
        let mut grid = Grid::new(Duration::from_secs(10), 3_000);
        let mut of = |start_ms: u64, intervals: u64| {
            grid.next_recording();
            for at in 0..intervals {
                let mut distribution = Distribution::default();
                distribution.record(1000, 1_000_000, 0);
                let id = SeriesKey::Foreign("x".into());
                let series = vec![Series { id, attrs: QueueAttrs::default(), distribution }];
                let interval =
                    Interval::new(Duration::from_secs(at), Duration::from_secs(1), series);
                grid.add(&interval, start_ms, &SeriesKey::clone);
            }
        };
        of(3_000, 20);
        of(8_500, 10);
        let cells: Vec<Interval<SeriesKey>> = grid.into_intervals().collect();
        let seen: Vec<(u64, f64, u64)> = cells
            .iter()
            .map(|cell| {
                let count = cell.series[0].distribution.count();
                (cell.start.as_millis() as u64, cell.duration.as_secs_f64(), count)
            })
            .collect();
        // 7 s of one and 1 s of the other; 10 s and 9 s; 3 s of the first alone.
        assert_eq!(seen, [(0, 4.0, 8), (7_250, 9.5, 19), (20_500, 3.0, 3)]);
    }
}
