//! Sinks: receivers of the intervals and the result of a measurement.

use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::pacing::Stop;
use crate::{
    analysis::totals::Totals,
    model::{
        cost::SelfCost, interval::Interval, ledger::Ledger, note::Note, run::Run, series::Series,
        summary::Summary, tcp_pressure::TcpPressure,
    },
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
    /// Totals of the shown part since the start; without series if no sink needs them.
    pub totals: &'a Totals,
    /// What the end of the run would report; `None`: no sink needs it.
    pub so_far: Option<&'a SoFar>,
}

/// What the end of a run would report if it were now.
#[derive(Clone, Debug)]
pub struct SoFar {
    /// The ledger, as far as it can be told while events happen.
    pub ledger: Ledger,
    /// What the measurement has cost.
    pub self_cost: SelfCost,
    /// What TCP did to stay inside its receive buffers, by network namespace.
    pub tcp: Vec<TcpPressure>,
}

/// Nothing has happened, and nothing is missing.
impl Default for SoFar {
    fn default() -> Self {
        Self {
            ledger: Ledger { balanced: true, ..Ledger::default() },
            self_cost: SelfCost::default(),
            tcp: Vec::new(),
        }
    }
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

    /// Whether intervals need what the end of the run would report.
    fn needs_so_far(&self) -> bool {
        false
    }

    /// Whether it uses [`Measured::totals`], or the totals at the end.
    fn needs_totals(&self) -> bool {
        true
    }

    /// Notes for the user about this sink since the last call.
    fn take_notes(&mut self) -> Vec<Note> {
        Vec::new()
    }
}
