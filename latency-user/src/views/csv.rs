//! CSV for spreadsheets: one line for each series, durations in ns.

use std::io;

use crate::model::{distribution::Distribution, series::Series, summary::SeriesSummary};

/// Names of the columns.
const COLUMNS: &str = "recording,series,stage,host,cpu,iface,queue,irq,count,sum_ns,min_ns,p50_ns,\
                       p90_ns,p99_ns,p99_9_ns,p99_99_ns,max_ns,over_threshold,ppm,packets\n";

/// Writes the names of the columns.
///
/// # Errors
///
/// What `out` fails with.
pub fn head(out: &mut dyn io::Write) -> io::Result<()> {
    out.write_all(COLUMNS.as_bytes())
}

/// Writes the series of a recording: timed ones, then plain ones.
///
/// # Errors
///
/// What `out` fails with.
pub fn series(
    recording: &str,
    timed: &[(Series, Distribution)],
    plain: &[(String, Distribution)],
    out: &mut dyn io::Write,
) -> io::Result<()> {
    for (series, distribution) in timed {
        let numbers = SeriesSummary::new(series, distribution);
        out.write_all(line(recording, &series.tag(), &numbers).as_bytes())?;
    }
    for (tag, distribution) in plain {
        let mut numbers = SeriesSummary::default();
        numbers.set_numbers(distribution);
        out.write_all(line(recording, tag, &numbers).as_bytes())?;
    }
    out.flush()
}

fn line(recording: &str, tag: &str, numbers: &SeriesSummary) -> String {
    fn optional<T: ToString>(value: Option<T>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    let place = &numbers.place;
    let queue = place.queue.map(|queue| queue.to_string()).or_else(|| place.queue_kind.clone());
    let names = [
        recording.to_owned(),
        tag.to_owned(),
        numbers.stage.to_string(),
        optional(place.host.clone()),
        optional(place.cpu),
        optional(place.iface.clone()),
        optional(queue),
        optional(place.irq),
    ];
    let mut line: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    line.extend(
        [
            numbers.count,
            numbers.sum_ns,
            numbers.min_ns,
            numbers.p50_ns,
            numbers.p90_ns,
            numbers.p99_ns,
            numbers.p99_9_ns,
            numbers.p99_99_ns,
            numbers.max_ns,
            numbers.over_threshold,
        ]
        .map(|number| number.to_string()),
    );
    line.push(format!("{:.3}", numbers.ppm));
    line.push(optional(numbers.packets));
    line.join(",") + "\n"
}

/// A field as RFC 4180 wants it.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::fixtures;

    #[test]
    fn every_line_has_every_column() {
        let mut out = Vec::new();
        head(&mut out).unwrap();
        let timed = fixtures::stalled();
        series("a.hlog", &timed, &[("get".into(), timed[0].1.clone())], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(lines.len(), 2 + timed.len());
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{text}");
        let at = |name| lines[0].iter().position(|column| *column == name).unwrap();
        let cpu = lines.iter().find(|line| line[1] == "stage=net_rx;cpu=1").unwrap();
        assert_eq!((cpu[at("cpu")], cpu[at("over_threshold")]), ("1", "37"));
        assert_eq!(lines.last().unwrap()[1], "get");
    }

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quoted("a b"), "a b");
    }
}
