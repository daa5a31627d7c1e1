//! Sinks: receivers of the intervals and the result of a measurement.

use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::pacing::Stop;
use crate::{
    analysis::totals::Totals,
    model::{interval::Interval, note::Note, run::Run, series::Series, summary::Summary},
};

/// One interval, as passed to a sink.
pub struct Measured<'a> {
    /// The header of the run.
    pub run: &'a Run,
    /// When the run started.
    pub started_at: SystemTime,
    /// Time since the start of the run.
    pub elapsed: Duration,
    /// Everything that was measured.
    pub all: &'a Interval,
    /// The part that the user asked to see.
    pub shown: &'a Interval,
    /// Totals of the shown part since the start.
    pub totals: &'a Totals,
}

/// The result of a run, as passed to a sink.
pub struct Finished<'a> {
    /// The summary.
    pub summary: &'a Summary,
    /// The distributions that it summarizes.
    pub series: &'a [Series],
}

/// Receives the data of a measurement. An error ends the measurement.
pub trait Sink {
    /// The run has started.
    ///
    /// # Errors
    ///
    /// When the sink cannot process it.
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

    /// An interval has ended. Returns why the run must stop; `None`: it continues.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    fn interval(&mut self, interval: &Measured<'_>) -> Result<Option<Stop>>;

    /// The last interval, which the end of the run cut short.
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

    /// Notes for the user about this sink since the last call.
    fn take_notes(&mut self) -> Vec<Note> {
        Vec::new()
    }
}
