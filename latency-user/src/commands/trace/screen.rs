//! Live output of a run: a table that is redrawn, or JSON lines.

use anyhow::Result;

use crate::{
    cli::{stdout::Output, unblocked::Unblocked, values::Format},
    measure::{
        pacing::Stop,
        sink::{Finished, Measured, Sink},
    },
    model::summary::Summary,
    views::{self, Style},
};

/// Shows intervals and the result on standard output. Ends the run when the reader has gone.
pub(super) struct Screen {
    output: Output,
    style: Style,
    format: Format,
    /// Behind `output`.
    reader: Unblocked,
}

impl Screen {
    pub(super) fn new(output: Output, style: Style, format: Format, reader: Unblocked) -> Self {
        Self { output, style, format, reader }
    }
}

impl Sink for Screen {
    fn interval(&mut self, interval: &Measured<'_>) -> Result<Option<Stop>> {
        let mut text = Vec::new();
        let Measured { run, started_at, shown, .. } = interval;
        match self.format {
            Format::Table => {
                let threshold_ns = run.threshold_ns;
                views::table::interval(shown, *started_at, threshold_ns, self.style, &mut text)?;
                self.output.refresh(&text)?;
            }
            Format::Json => {
                views::json::interval(shown, *started_at, &mut text)?;
                self.output.write(&text)?;
            }
        }
        Ok(self.output.is_closed().then_some(Stop::Closed))
    }

    fn last_interval(&mut self, interval: &Measured<'_>) -> Result<()> {
        if self.format == Format::Json {
            let mut text = Vec::new();
            views::json::stalls(&interval.shown.batch, &mut text)?;
            self.output.write(&text)?;
        }
        Ok(())
    }

    fn finish(&mut self, end: &Finished<'_>) -> Result<()> {
        let mut text = Vec::new();
        let dropped_output_lines = Some(self.reader.dropped_lines());
        let summary = &Summary { dropped_output_lines, ..end.summary.clone() };
        match self.format {
            Format::Table => {
                views::table::summary(summary, end.series, self.style, &mut text)?;
            }
            Format::Json => views::json::summary(summary, &mut text)?,
        }
        self.output.write(&text)
    }
}
