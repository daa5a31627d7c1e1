//! Heat maps: the longest duration of each CPU or queue over time, on a log scale.

use std::collections::BTreeMap;

use latency_common::stage::Stage;

use super::{Figure, Recording, svg};
use crate::{
    model::timeline::Cell,
    views::{format::duration, table},
};

const WIDTH: u32 = 960;
/// Space for the names of rows.
const LEFT: u32 = 130;
const BOTTOM: u32 = 22;

/// Classes of the scale: style class, and its range relative to the threshold `T`.
/// Blue below the threshold, orange from it on, which colour-blind readers can distinguish.
pub(super) const LEGEND: [(&str, &str); 9] = [
    ("b0", "below T/1000"),
    ("b1", "T/1000 to T/100"),
    ("b2", "T/100 to T/30"),
    ("b3", "T/30 to T/10"),
    ("b4", "T/10 to T/3"),
    ("b5", "T/3 to T"),
    ("s0", "stall: T to 4T"),
    ("s1", "stall: 4T to 16T"),
    ("s2", "stall: above 16T"),
];

/// The heat map of a stage; `None` when it recorded nothing.
pub(super) fn figure(recording: &Recording<'_>, stage: Stage) -> Option<Figure> {
    let threshold = recording.summary.run.threshold_ns.max(1);
    let rows = recording.timeline.rows().filter(|(id, _)| id.stage == stage);
    let rows: Vec<(String, Vec<Cell>)> = rows
        .filter_map(|(id, cells)| {
            let shown = recording.series.iter().find(|series| series.id == *id)?;
            Some((table::label(shown), cells))
        })
        .collect();
    if rows.is_empty() {
        return None;
    }
    let columns = recording.timeline.seconds.len();
    let seconds: f64 = recording.timeline.seconds.iter().sum();
    let row_height = match rows.len() {
        0..=12 => 16,
        13..=40 => 11,
        _ => 6,
    };
    let plot = row_height * rows.len() as u32;
    let what = match stage {
        Stage::NapiPoll => "queue",
        _ => "CPU",
    };
    let title = format!("{}: longest duration by {what} over time", stage.name());
    let mut figure = svg::begin(WIDTH, plot + BOTTOM, &title);
    // Names that would overlap are only in the table.
    let every = 11_u32.div_ceil(row_height) as usize;
    for (at, (name, _)) in rows.iter().enumerate().filter(|(at, _)| at % every == 0) {
        let y = f64::from(row_height) * (at as f64 + 0.5) + 4.0;
        figure.push_str(&svg::label(f64::from(LEFT) - 6.0, y, "end", name));
    }
    let width = WIDTH - LEFT;
    figure.push_str(&format!(
        "<svg x=\"{LEFT}\" y=\"0\" width=\"{width}\" height=\"{plot}\" \
         viewBox=\"0 0 {columns} {}\" preserveAspectRatio=\"none\">",
        rows.len()
    ));
    for (class, path) in paths(&rows, threshold) {
        figure.push_str(&format!("<path class=\"{class}\" d=\"{path}\"/>"));
    }
    figure.push_str("</svg>");
    let (left, width) = (f64::from(LEFT), f64::from(width));
    figure.push_str(&svg::time_axis(left, width, f64::from(plot + 16), seconds));
    figure.push_str("</svg>");
    let mut head = vec![what.to_owned()];
    let mut start = 0.0;
    for length in &recording.timeline.seconds {
        head.push(duration((start * 1e9) as u64));
        start += length;
    }
    let numbers = rows.into_iter().map(|(name, cells)| {
        let cells = cells.iter().map(|cell| match cell.count {
            0 => String::new(),
            _ => duration(cell.max_ns),
        });
        std::iter::once(name).chain(cells).collect()
    });
    Some(Figure {
        title,
        note: format!("T is the threshold, {}.", crate::views::format::short_duration(threshold)),
        svg: figure,
        head,
        rows: numbers.collect(),
    })
}

/// The cells of each class as one path; neighbours of one class are one rectangle.
fn paths(rows: &[(String, Vec<Cell>)], threshold: u64) -> BTreeMap<&'static str, String> {
    let mut paths: BTreeMap<&'static str, String> = BTreeMap::new();
    for (y, (_, cells)) in rows.iter().enumerate() {
        let mut x = 0;
        while x < cells.len() {
            let class = class(&cells[x], threshold);
            let same = cells[x..].iter().take_while(|cell| self::class(cell, threshold) == class);
            let length = same.count();
            if let Some(class) = class {
                let path = paths.entry(class).or_default();
                path.push_str(&format!("M{x} {y}h{length}v1h-{length}z"));
            }
            x += length;
        }
    }
    paths
}

fn class(cell: &Cell, threshold: u64) -> Option<&'static str> {
    if cell.count == 0 {
        return None;
    }
    let part = cell.max_ns as f64 / threshold as f64;
    let limits = [0.001, 0.01, 1.0 / 30.0, 0.1, 1.0 / 3.0, 1.0, 4.0, 16.0];
    let at = limits.iter().filter(|limit| part >= **limit).count();
    Some(LEGEND[at].0)
}
