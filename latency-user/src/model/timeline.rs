//! A recording over time: what each series did in each column of time.

use std::{collections::BTreeMap, time::Duration};

use super::{
    distribution::Distribution,
    series::{Series, SeriesId, SeriesKey},
};

/// Maximum number of columns: more are not readable in a figure or a table.
pub const MAX_COLUMNS: usize = 60;

/// A recording in columns of equal length. Series of other programs are left out.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// Length of each column, seconds.
    pub seconds: Vec<f64>,
    /// Cells of each series, up to its last column with data.
    cells: BTreeMap<SeriesId, Vec<Cell>>,
    span: usize,
    filled: usize,
}

/// A series in one column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Number of durations.
    pub count: u64,
    /// Longest duration, ns.
    pub max_ns: u64,
    /// Durations at or above the threshold.
    pub stalls: u64,
}

impl Timeline {
    /// Adds the next interval.
    pub fn add(&mut self, length: Duration, series: &[Series<SeriesKey>]) {
        let known = series.iter().filter_map(|Series { id, distribution, .. }| {
            Some((id.known()?, Cell::of(distribution)))
        });
        self.add_cells(length, known);
    }

    /// Adds the next interval, by what each series did in it.
    pub fn add_cells<'a>(
        &mut self,
        length: Duration,
        series: impl IntoIterator<Item = (&'a SeriesId, Cell)>,
    ) {
        self.span = self.span.max(1);
        if self.seconds.is_empty() || self.filled == self.span {
            if self.seconds.len() == MAX_COLUMNS {
                self.join();
            }
            self.seconds.push(0.0);
            self.filled = 0;
        }
        self.filled += 1;
        let column = self.seconds.len() - 1;
        self.seconds[column] += length.as_secs_f64();
        for (id, cell) in series {
            let cells = match self.cells.get_mut(id) {
                Some(cells) => cells,
                None => self.cells.entry(id.clone()).or_default(),
            };
            cells.resize(column + 1, Cell::default());
            cells[column].add(cell);
        }
    }

    fn join(&mut self) {
        self.seconds = self.seconds.chunks(2).map(|pair| pair.iter().sum()).collect();
        for cells in self.cells.values_mut() {
            let joined = cells.chunks(2).map(|pair| {
                let mut cell = Cell::default();
                pair.iter().for_each(|other| cell.add(*other));
                cell
            });
            *cells = joined.collect();
        }
        self.span *= 2;
    }

    /// The series, in their order, each with one cell for each column.
    pub fn rows(&self) -> impl Iterator<Item = (&SeriesId, Vec<Cell>)> {
        self.cells.iter().map(|(id, cells)| {
            let mut cells = cells.clone();
            cells.resize(self.seconds.len(), Cell::default());
            (id, cells)
        })
    }
}

impl Cell {
    /// These durations in one column.
    pub fn of(durations: &Distribution) -> Self {
        Self {
            count: durations.count(),
            max_ns: durations.max_ns,
            stalls: durations.over_threshold,
        }
    }

    /// Adds what happened in another column or series.
    pub fn add(&mut self, other: Self) {
        self.count += other.count;
        self.max_ns = self.max_ns.max(other.max_ns);
        self.stalls += other.stalls;
    }
}

#[cfg(test)]
mod tests {
    use latency_common::stage::Stage;

    use super::*;
    use crate::model::{
        distribution::Distribution,
        series::{Location, attrs::QueueAttrs},
    };

    #[test]
    fn an_hour_fits_and_loses_nothing() {
        let mut timeline = Timeline::default();
        for second in 0..3600_u64 {
            let mut distribution = Distribution::default();
            distribution.record(second * 1000, 1_000_000, 0);
            let id = SeriesId { stage: Stage::NetRx, at: Location::Cpu((second % 7) as u32) };
            let series =
                Series { id: SeriesKey::Known(id), attrs: QueueAttrs::default(), distribution };
            timeline.add(Duration::from_secs(1), &[series]);
        }
        assert!(timeline.seconds.len() <= MAX_COLUMNS);
        assert_eq!(timeline.seconds.iter().sum::<f64>(), 3600.0);
        let mut total = Cell::default();
        for (_, cells) in timeline.rows() {
            assert_eq!(cells.len(), timeline.seconds.len());
            cells.into_iter().for_each(|cell| total.add(cell));
        }
        assert_eq!(total, Cell { count: 3600, max_ns: 3_599_000, stalls: 2600 });
    }
}
