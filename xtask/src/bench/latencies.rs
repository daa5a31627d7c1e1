//! Latencies of slices, and quantiles over several slices.

/// Latencies of one slice: each value in ns, with the cumulative count up to and including it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Latencies(Vec<(u64, u64)>);

impl Latencies {
    /// From values in ascending order and their counts.
    pub(crate) fn new(counts: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut sum = 0;
        let cumulate = |(value, count)| {
            sum += count;
            (value, sum)
        };
        Self(counts.into_iter().map(cumulate).collect())
    }

    fn total(&self) -> u64 {
        self.0.last().map_or(0, |(_, sum)| *sum)
    }

    fn at_or_below(&self, value: u64) -> u64 {
        let above = self.0.partition_point(|(latency, _)| *latency <= value);
        above.checked_sub(1).map_or(0, |at| self.0[at].1)
    }
}

/// Quantile `q` of the latencies of all `slices`, ns: the smallest value that a share `q` of them
/// lies at or below. NaN if there are none. Copies no slice: the bootstrap calls this thousands of
/// times.
pub(crate) fn quantile(slices: &[&Latencies], q: f64) -> f64 {
    let total: u64 = slices.iter().map(|slice| slice.total()).sum();
    if total == 0 {
        return f64::NAN;
    }
    let wanted = ((q * total as f64).ceil() as u64).max(1);
    let highest = slices.iter().filter_map(|slice| slice.0.last()).map(|(value, _)| *value);
    let (mut low, mut high) = (0, highest.max().unwrap_or(0));
    while low < high {
        let middle = low + (high - low) / 2;
        let below: u64 = slices.iter().map(|slice| slice.at_or_below(middle)).sum();
        if below >= wanted { high = middle } else { low = middle + 1 }
    }
    low as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_over_several_slices() {
        let (first, second) = (Latencies::new([(10, 90)]), Latencies::new([(20, 9), (30, 1)]));
        assert_eq!(quantile(&[&first, &second], 0.9), 10.0);
        assert_eq!(quantile(&[&first, &second], 0.99), 20.0);
        assert_eq!(quantile(&[&first, &second], 0.9999), 30.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    /// Compares with sorting all latencies and indexing.
    #[test]
    fn quantiles_as_by_sorting() {
        let mut random = fastrand::Rng::with_seed(11);
        let slices: Vec<Vec<u64>> =
            (0..7).map(|_| (0..101).map(|_| random.u64(1..5000)).collect()).collect();
        let mut sorted: Vec<u64> = slices.iter().flatten().copied().collect();
        sorted.sort_unstable();
        let latencies: Vec<Latencies> = slices
            .into_iter()
            .map(|mut slice| {
                slice.sort_unstable();
                Latencies::new(slice.into_iter().map(|value| (value, 1)))
            })
            .collect();
        let slices: Vec<&Latencies> = latencies.iter().collect();
        for q in [0.001, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let at = (q * sorted.len() as f64).ceil() as usize - 1;
            assert_eq!(quantile(&slices, q), sorted[at] as f64, "{q}");
        }
    }
}
