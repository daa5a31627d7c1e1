//! Foreign series, in the columns of the others.

use crate::{
    model::{distribution::Distribution, summary::Numbers, unit::Unit},
    views::{
        Style,
        format::short_duration,
        text::{paragraph, printable, shorten},
    },
};

use super::columns::{TITLES, cells};

/// Width of a tag: what the widest numbers leave of 80 columns.
const TAG: usize = 18;

/// Appends the foreign series of a recording.
pub(super) fn block(
    text: &mut String,
    foreign: &[(String, Distribution)],
    threshold_ns: u64,
    unit: Option<Unit>,
    style: Style,
) {
    let rows: Vec<(String, [String; 8])> = foreign
        .iter()
        .map(|(tag, distribution)| {
            let numbers = Numbers::new(distribution);
            let tag = if tag.is_empty() { "(no tag)".into() } else { printable(tag) };
            (shorten(&tag, TAG), cells(&numbers))
        })
        .collect();
    let unit = match unit {
        None => "values taken as ns".to_owned(),
        Some(unit) => format!("values in {}", unit.name()),
    };
    let title = format!(
        "Series of another program or version, {unit}, stalls from {} on:",
        short_duration(threshold_ns)
    );
    paragraph(text, &title, 2, style, Style::bold);
    let label = rows.iter().map(|(tag, _)| tag.len()).max().unwrap_or(0);
    let mut widths = TITLES.map(str::len);
    for (_, cells) in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.len());
        }
    }
    let line = |tag: &str, cells: [&str; 8]| {
        let mut line = format!("  {tag:<label$}");
        for (cell, width) in cells.into_iter().zip(widths) {
            line.push_str(&format!(" {cell:>width$}"));
        }
        line + "\n"
    };
    text.push_str(&style.dim(&line("", TITLES)));
    for (tag, cells) in &rows {
        text.push_str(&line(tag, cells.each_ref().map(|cell| &**cell)));
    }
}
