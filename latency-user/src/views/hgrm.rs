//! HdrHistogram's percentile distribution, which its plotters take. Values are in microseconds.

use std::io;

use hdrhistogram::Histogram;
use latency_common::bucket::{MAX_VALUE, SIGNIFICANT_DIGITS, SUB_BUCKETS};

/// Values are divided by this: ns to us.
const SCALE: f64 = 1e3;

/// Steps of the percentile axis for each halving of the distance to 100 %: HdrHistogram's default.
const TICKS: u32 = 5;

/// Octaves of the bucket layout.
const OCTAVES: u32 = MAX_VALUE.ilog2() + 1 - SUB_BUCKETS.ilog2();

/// Writes the distribution of one histogram.
///
/// # Errors
///
/// What `out` fails with.
pub fn distribution(histogram: &Histogram<u64>, out: &mut dyn io::Write) -> io::Result<()> {
    let digits = usize::from(SIGNIFICANT_DIGITS);
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS) {
        total += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / SCALE;
        let quantile = step.quantile_iterated_to();
        text.push_str(&format!("{value:>12.digits$} {quantile:>14.12} {total:>10}"));
        if quantile < 1.0 {
            text.push_str(&format!(" {:>14.2}", 1.0 / (1.0 - quantile)));
        }
        text.push('\n');
    }
    text.push_str(&format!(
        "#[Mean    = {:>12.digits$}, StdDeviation   = {:>12.digits$}]\n",
        histogram.mean() / SCALE,
        histogram.stdev() / SCALE
    ));
    text.push_str(&format!(
        "#[Max     = {:>12.digits$}, TotalCount     = {:>12.digits$}]\n",
        histogram.max() as f64 / SCALE,
        histogram.len() as f64
    ));
    text.push_str(&format!(
        "#[Buckets = {OCTAVES:>12}, SubBuckets     = {:>12}]\n",
        2 * SUB_BUCKETS
    ));
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::samples;

    #[test]
    fn the_last_line_holds_everything() {
        let recorded = samples::durations(100, 2000, &[21_400_000]);
        let mut out = Vec::new();
        distribution(&recorded.histogram(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("#[")).collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        let last: Vec<&str> = lines[lines.len() - 1].split_whitespace().collect();
        assert_eq!(&last[1..], ["1.000000000000", "101"]);
        // To the upper end of the bucket, 0.8 % above the value at most.
        let value: f64 = last[0].parse().unwrap();
        assert!((21_400.0..21_572.0).contains(&value), "{value}");
    }
}
