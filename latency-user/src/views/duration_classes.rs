//! Runs of `net_rx_action` by duration, before and after a change: a table of powers of two.

use super::{
    Style,
    format::{count, ppm},
};
use crate::model::duration_classes::{DurationClasses, LOWER_BOUNDS_MS};

/// Column titles and four rows: runs before, the same per million, and both after.
pub(super) fn rows(sides: &[DurationClasses; 2]) -> [Vec<String>; 5] {
    let mut head = vec!["net_rx_action, ms".to_owned()];
    head.extend(LOWER_BOUNDS_MS.iter().map(u64::to_string));
    let row = |label: &str, side: &DurationClasses, show: &dyn Fn(u64) -> String| {
        let mut row = vec![label.to_owned()];
        row.extend(side.counts.iter().map(|runs| show(*runs)));
        row
    };
    let million = |side: &DurationClasses| {
        let all = side.runs.max(1) as f64;
        move |runs: u64| ppm(runs as f64 / all * 1e6)
    };
    let [before, after] = sides;
    [
        head,
        row("before", before, &count),
        row("  of a million", before, &million(before)),
        row("after", after, &count),
        row("  of a million", after, &million(after)),
    ]
}

/// Appends the table for people.
pub(super) fn table(text: &mut String, sides: &[DurationClasses; 2], style: Style) {
    let line = |row: &[String]| {
        let mut line = format!("{:<17} {:>9}", row[0], row[1]);
        row[2..].iter().for_each(|cell| line.push_str(&format!(" {cell:>7}")));
        line
    };
    let rows = rows(sides);
    text.push_str(&style.bold(&line(&rows[0])));
    rows[1..].iter().for_each(|row| text.push_str(&format!("\n{}", line(row))));
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The article's two tables.
    #[test]
    fn the_article_fits_80_columns() {
        let before = DurationClasses { runs: 3_685_271, counts: [3_685_011, 215, 30, 9, 5, 1, 0] };
        let after = DurationClasses { runs: 3_567_235, counts: [3_567_196, 36, 3, 0, 0, 0, 0] };
        let mut text = String::new();
        table(&mut text, &[before, after], Style { colour: false, width: 80 });
        let expected = "\
net_rx_action, ms         0       1       2       4       8      16      32
before              3685011     215      30       9       5       1       0
  of a million       999929    58.3     8.1     2.4     1.4     0.3       0
after               3567196      36       3       0       0       0       0
  of a million       999989    10.1     0.8       0       0       0       0
";
        assert_eq!(text, expected);
    }
}
