//! HdrHistogram's percentile distribution, for its plotters. Values are in microseconds.

use std::io;

use latency_common::bucket::{BUCKETS, MAX_VALUE, SIGNIFICANT_DIGITS, SUB_BUCKETS};

use crate::model::distribution::Distribution;

/// Values are divided by this: ns to us.
const SCALE: f64 = 1e3;

/// Each step covers a tenth of the distance to 100 %: HdrHistogram's five ticks per half distance.
const STEP: f64 = 0.1;

/// Octaves of the bucket layout.
const OCTAVES: u32 = MAX_VALUE.ilog2() + 1 - SUB_BUCKETS.ilog2();

/// Writes a distribution.
///
/// # Errors
///
/// What `out` fails with.
pub fn distribution(distribution: &Distribution, out: &mut dyn io::Write) -> io::Result<()> {
    let digits = usize::from(SIGNIFICANT_DIGITS);
    let histogram = distribution.histogram();
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let total = histogram.len();
    let mut level = 0.0;
    let mut seen = 0;
    for (index, count) in &distribution.buckets {
        seen += count;
        let value = distribution.upper_end(*index) as f64 / SCALE;
        while seen as f64 / total as f64 >= level {
            let distance = 1.0 - level;
            text.push_str(&format!(
                "{value:>12.digits$} {level:>14.12} {seen:>10} {:>14.2}\n",
                1.0 / distance
            ));
            level += distance * STEP;
            if seen == total {
                text.push_str(&format!("{value:>12.digits$} {:>14.12} {seen:>10}\n", 1.0));
                break;
            }
            // With more values than an f64 can resolve, the loop would never end.
            if distance < 1e-14 {
                break;
            }
        }
    }
    let (mean, deviation) = match distribution.buckets.last() {
        // The histogram does not know how far above its last bucket these values are.
        Some((last, _)) if usize::from(*last) + 1 == BUCKETS => moments(distribution),
        _ => (histogram.mean(), histogram.stdev()),
    };
    text.push_str(&format!(
        "#[Mean    = {:>12.digits$}, StdDeviation   = {:>12.digits$}]\n",
        mean / SCALE,
        deviation / SCALE
    ));
    text.push_str(&format!(
        "#[Max     = {:>12.digits$}, TotalCount     = {:>12.digits$}]\n",
        distribution.max_ns as f64 / SCALE,
        histogram.len() as f64
    ));
    text.push_str(&format!(
        "#[Buckets = {OCTAVES:>12}, SubBuckets     = {:>12}]\n",
        2 * SUB_BUCKETS
    ));
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Mean and standard deviation, with the sum of all values and the upper ends of their buckets.
fn moments(distribution: &Distribution) -> (f64, f64) {
    let count = distribution.count().max(1) as f64;
    let mean = distribution.sum_ns as f64 / count;
    let squares = distribution
        .buckets
        .iter()
        .map(|(index, n)| *n as f64 * (distribution.upper_end(*index) as f64 - mean).powi(2));
    (mean, (squares.sum::<f64>() / count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::fixtures;

    #[test]
    fn the_last_line_holds_everything() {
        let recorded = fixtures::durations(100, 2000, &[21_400_000]);
        let mut out = Vec::new();
        distribution(&recorded, &mut out).unwrap();
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
