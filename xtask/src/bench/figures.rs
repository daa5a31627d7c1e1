//! Summarises the numbers of many slices: the median and its bootstrap confidence interval.
//!
//! Owns the statistics; callers know what the numbers mean.

/// Resamples of the bootstrap: 50 of them lie beyond each end of a 95 % interval.
const RESAMPLES: usize = 2000;

/// Fixed, so that the same slices give the same interval.
const SEED: u64 = 0x6c61_7465_6e63_7901;

/// A number with its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    /// Ends of the 95 % interval; equal to the median for a single slice.
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) slices: usize,
}

/// The median of `values` and its interval; `None` if there are none.
pub(crate) fn of(values: &[f64]) -> Option<Figure> {
    bootstrap(values.len(), |chosen| {
        median(&chosen.iter().map(|at| values[*at]).collect::<Vec<_>>())
    })
}

/// `statistic` of `items` slices, and its interval over resamples of them (percentile method).
/// `statistic` gets the indices of a resample.
pub(crate) fn bootstrap(items: usize, statistic: impl Fn(&[usize]) -> f64) -> Option<Figure> {
    if items == 0 {
        return None;
    }
    let all: Vec<usize> = (0..items).collect();
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut resampled: Vec<f64> = (0..RESAMPLES)
        .map(|_| statistic(&all.iter().map(|_| random.usize(..items)).collect::<Vec<_>>()))
        .collect();
    resampled.sort_by(f64::total_cmp);
    let tail = RESAMPLES / 40;
    Some(Figure {
        median: statistic(&all),
        low: resampled[tail],
        high: resampled[RESAMPLES - 1 - tail],
        slices: items,
    })
}

/// The median; NaN if there are no values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[9.0, 1.0, 4.0]), 4.0);
        assert_eq!(median(&[9.0, 1.0, 4.0, 6.0]), 5.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn one_slice_has_no_spread_and_no_slices_give_no_figure() {
        assert_eq!(of(&[3.0]), Some(Figure { median: 3.0, low: 3.0, high: 3.0, slices: 1 }));
        assert_eq!(of(&[]), None);
    }

    /// Of 200 experiments with a known true median, about 95 % of the intervals must contain it.
    /// The bootstrap of the median of 25 values deviates a little either way.
    #[test]
    fn intervals_contain_the_true_median_as_often_as_claimed() {
        let mut random = fastrand::Rng::with_seed(7);
        let hits = (0..200)
            .filter(|_| {
                // Exponential: skewed, as durations are.
                let values: Vec<f64> = (0..25).map(|_| -random.f64().ln()).collect();
                let figure = of(&values).unwrap();
                let truth = std::f64::consts::LN_2;
                figure.low <= truth && truth <= figure.high
            })
            .count();
        assert!((180..=199).contains(&hits), "{hits} of 200");
    }
}
