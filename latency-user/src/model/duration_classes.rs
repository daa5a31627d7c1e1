//! Runs of `net_rx_action` by duration: powers of two of a millisecond, as a first overview.

use latency_common::stage::Stage;
use serde::Serialize;

use super::{distribution::Distribution, series::SeriesId};

/// Lower bounds of the classes, ms. The last class has no upper bound.
pub const LOWER_BOUNDS_MS: [u64; 7] = [0, 1, 2, 4, 8, 16, 32];

/// How many runs fall into each class of duration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DurationClasses {
    /// All runs.
    pub runs: u64,
    /// Runs in each class of [`LOWER_BOUNDS_MS`], to the precision of a bucket (0.8 %).
    pub counts: [u64; LOWER_BOUNDS_MS.len()],
}

impl DurationClasses {
    /// Classifies the runs of all CPUs.
    pub fn new<'a>(series: impl IntoIterator<Item = (&'a SeriesId, &'a Distribution)>) -> Self {
        let mut classes = Self::default();
        for (_, runs) in series.into_iter().filter(|(id, _)| id.stage == Stage::NetRx) {
            let at_least = LOWER_BOUNDS_MS.map(|ms| runs.count_from(ms * 1_000_000));
            classes.runs += at_least[0];
            for (at, class) in classes.counts.iter_mut().enumerate() {
                *class += at_least[at] - at_least.get(at + 1).unwrap_or(&0);
            }
        }
        classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::series::Location;

    #[test]
    fn runs_fall_into_one_class_each() {
        let mut runs = Distribution::default();
        for us in [1, 900, 1_100, 1_900, 2_100, 7_000, 15_000, 17_000, 31_000, 33_000, 400_000] {
            runs.record(us * 1_000, 1_000_000, 0);
        }
        let series = |stage, cpu| SeriesId { stage, at: Location::Cpu(cpu) };
        let all = [
            (series(Stage::NetRx, 0), runs.clone()),
            (series(Stage::NetRx, 1), runs.clone()),
            (series(Stage::RxWait, 1), runs),
        ];
        let found = DurationClasses::new(all.iter().map(|(series, runs)| (series, runs)));
        assert_eq!(found, DurationClasses { runs: 22, counts: [4, 4, 2, 2, 2, 4, 4] });
    }
}
