//! Sinks: where the intervals and the result of a measurement go.

use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::pacing::Stop;
use crate::{
    analysis::totals::Totals,
    model::{interval::Interval, note::Note, run::Run, series::Series, summary::Summary},
};

/// One interval, as a sink sees it.
pub struct Measured<'a> {
    /// The header of the run.
    pub run: &'a Run,
    /// When the run started.
    pub started_at: SystemTime,
    /// Time since then.
    pub elapsed: Duration,
    /// Everything that was measured.
    pub all: &'a Interval,
    /// What the user asked to see of it.
    pub shown: &'a Interval,
    /// What is shown, summed up since the start.
    pub totals: &'a Totals,
}

/// The result of a run, as a sink sees it.
pub struct Finished<'a> {
    /// In numbers.
    pub summary: &'a Summary,
    /// The distributions that it sums up.
    pub series: &'a [Series],
}

/// Takes what a measurement finds. An error ends the measurement.
pub trait Sink {
    /// The run has started.
    ///
    /// # Errors
    ///
    /// When the sink cannot take it.
    fn start(&mut self, _run: &Run) -> Result<()> {
        Ok(())
    }

    /// The header of the run has changed: a stage was disabled.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    fn run_changed(&mut self, _run: &Run) -> Result<()> {
        Ok(())
    }

    /// An interval has ended. Returns why the run is to stop; `None`: it goes on.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    fn interval(&mut self, interval: &Measured<'_>) -> Result<Option<Stop>>;

    /// The interval that the end of the run cut short.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    fn last_interval(&mut self, interval: &Measured<'_>) -> Result<()> {
        self.interval(interval).map(drop)
    }

    /// The run has ended.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    fn finish(&mut self, _end: &Finished<'_>) -> Result<()> {
        Ok(())
    }

    /// What the user must know of this sink since the last call.
    fn take_notes(&mut self) -> Vec<Note> {
        Vec::new()
    }
}
