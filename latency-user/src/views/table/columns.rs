//! Columns of the table: how each is titled and formatted, and the widths that all stages share.

use latency_common::stage::Stage;

use crate::{
    model::summary::Numbers,
    views::{
        Style,
        format::{count, duration, ppm},
        text::paragraph,
    },
};

use super::rows::{self, Fold, Folded, Label, TableRow};

/// Titles of the columns behind the label.
pub(super) const TITLES: [&str; 8] =
    ["count", "p50", "p99", "p99.9", "p99.99", "max", "stalls", "ppm"];

/// Minimum width of labels, however wide the numbers are.
const MIN_LABEL: usize = 8;

/// The rows of a stage as they will be shown.
pub(super) struct Block {
    pub(super) stage: Stage,
    lines: Vec<BlockLine>,
    folded: Folded,
}

struct BlockLine {
    label: Label,
    cells: [String; 8],
    stalled: bool,
}

impl Block {
    pub(super) fn new((stage, rows): (Stage, Vec<TableRow<'_>>), limits: Fold) -> Self {
        let (rows, folded) = rows::fold(rows, limits);
        Self { stage, lines: rows.iter().map(BlockLine::new).collect(), folded }
    }

    pub(super) fn write(&self, text: &mut String, widths: &Widths, style: Style) {
        for line in &self.lines {
            // The mark replaces the colour where there is none.
            let mark = if line.stalled { "! " } else { "  " };
            let label = line.label.fit(widths.label);
            let written = widths.line(mark, &label, line.cells.each_ref().map(|cell| &**cell));
            text.push_str(&if line.stalled { style.alarm(&written) } else { written });
            text.push('\n');
        }
        if self.folded.rows > 0 {
            let folded = format!("  {}", self.folded.sentence(self.stage));
            let paint = if self.folded.stalls > 0 { Style::alarm } else { Style::dim };
            paragraph(text, &folded, 4, style, paint);
        }
    }
}

impl BlockLine {
    fn new(row: &TableRow<'_>) -> Self {
        let numbers = row.numbers();
        Self { label: row.label(), cells: cells(&numbers), stalled: numbers.over_threshold > 0 }
    }
}

pub(super) fn cells(numbers: &Numbers) -> [String; 8] {
    [
        count(numbers.count),
        duration(numbers.p50_ns),
        duration(numbers.p99_ns),
        duration(numbers.p99_9_ns),
        duration(numbers.p99_99_ns),
        duration(numbers.max_ns),
        count(numbers.over_threshold),
        ppm(numbers.ppm),
    ]
}

/// Widths of the columns, the same in every block.
pub(super) struct Widths {
    label: usize,
    cells: [usize; 8],
}

impl Widths {
    pub(super) fn of(blocks: &[Block], style: Style) -> Self {
        let mut cells = TITLES.map(str::len);
        let mut wanted = MIN_LABEL;
        for line in blocks.iter().flat_map(|block| &block.lines) {
            wanted = wanted.max(line.label.full().len());
            for (width, cell) in cells.iter_mut().zip(&line.cells) {
                *width = (*width).max(cell.len());
            }
        }
        // Two columns for the mark, and a space in front of each cell.
        let taken = 2 + cells.iter().map(|width| width + 1).sum::<usize>();
        let available = style.columns().saturating_sub(taken).max(MIN_LABEL);
        Self { label: wanted.min(available), cells }
    }

    pub(super) fn titles(&self, label: &str) -> String {
        if label.is_empty() {
            self.line("  ", "", TITLES)
        } else {
            // A stage's name starts two columns before the labels under it.
            let (mark, rest) = label.split_at(2);
            self.line(mark, rest, TITLES)
        }
    }

    fn line(&self, mark: &str, label: &str, cells: [&str; 8]) -> String {
        let mut line = format!("{mark}{label:<width$}", width = self.label);
        for (cell, width) in cells.into_iter().zip(self.cells) {
            line.push_str(&format!(" {cell:>width$}"));
        }
        line
    }
}
