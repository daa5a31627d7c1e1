//! CSV for spreadsheets: one line for each series, durations in ns.

use std::io;

use crate::model::{
    distribution::Distribution,
    series::{Series, labels::Labels},
    summary::{Numbers, SeriesSummary},
};

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

/// Writes the series of a recording: known ones, then foreign ones.
///
/// # Errors
///
/// What `out` fails with.
pub fn series(
    recording: &str,
    series: &[Series],
    foreign: &[(String, Distribution)],
    out: &mut dyn io::Write,
) -> io::Result<()> {
    for row in series {
        let summary = SeriesSummary::new(row);
        let stage = summary.stage.as_str();
        let line = line(recording, &row.id.tag(), stage, &summary.labels, &summary.numbers);
        out.write_all(line.as_bytes())?;
    }
    for (tag, distribution) in foreign {
        let numbers = Numbers::new(distribution);
        let line = line(recording, tag, "", &Labels::default(), &numbers);
        out.write_all(line.as_bytes())?;
    }
    out.flush()
}

fn line(recording: &str, tag: &str, stage: &str, labels: &Labels, numbers: &Numbers) -> String {
    fn optional<T: ToString>(value: Option<T>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    let queue = labels.queue.map(|queue| queue.to_string()).or_else(|| labels.queue_kind.clone());
    let names = [
        recording.to_owned(),
        tag.to_owned(),
        stage.to_owned(),
        optional(labels.host.clone()),
        optional(labels.cpu),
        optional(labels.iface.clone()),
        optional(queue),
        optional(labels.irq),
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

/// A field, quoted as in RFC 4180. What a spreadsheet would run as a formula starts with an
/// apostrophe, which makes it text.
fn quoted(field: &str) -> String {
    if field.starts_with(['=', '+', '-', '@', '\t']) {
        return quoted(&format!("'{field}"));
    }
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
        let known = fixtures::stalled();
        let foreign = [("get".into(), known[0].distribution.clone())];
        series("a.hlog", &known, &foreign, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(lines.len(), 2 + known.len());
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
        assert_eq!(quoted("=cmd|' /C calc'!A0"), "'=cmd|' /C calc'!A0");
        assert_eq!(quoted("-x"), "'-x");
    }
}
