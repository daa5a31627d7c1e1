//! A side of an experiment: all windows with, or all without, the change as one recording.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::Result;

use crate::{
    analysis::totals::Totals,
    measure::{
        pacing::Stop,
        sink::{Measured, Sink},
    },
    model::{
        duration_classes::DurationClasses,
        experiment::Rates,
        run::Run,
        stall::{culprit::Culprit, time::StallTime},
    },
    recording::writer::Writer,
};

/// Records the intervals of all windows of a side.
pub struct SideRecording {
    path: PathBuf,
    writer: Writer,
    /// Header and start time of the first window's run.
    run: Option<(Run, SystemTime)>,
    totals: Totals,
    seconds: f64,
    /// The rates of each window, for the guards.
    pub rates: Vec<Rates>,
}

impl SideRecording {
    /// Opens the recording of a side, with the permissions `mode`.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn create(path: PathBuf, mode: u32) -> Result<Self> {
        let writer = Writer::create_with(&path, mode)?;
        let (totals, rates) = (Totals::default(), Vec::new());
        Ok(Self { path, writer, run: None, totals, seconds: 0.0, rates })
    }

    /// Adds the results of a window of `seconds`.
    pub(super) fn add(&mut self, rates: Rates, seconds: f64, totals: Totals) {
        self.rates.push(rates);
        self.seconds += seconds;
        self.totals.join(totals);
    }

    /// `net_rx` events of its windows by duration.
    pub fn duration_classes(&self) -> DurationClasses {
        let series = self.totals.series.iter();
        DurationClasses::new(series.map(|(id, total)| (id, &total.distribution)))
    }

    /// The functions that its stalls were spent in, worst first.
    pub fn culprits(&self) -> Vec<Culprit> {
        self.totals.stalls.culprits()
    }

    /// The time of its stalls.
    pub fn stall_time(&self) -> StallTime {
        self.totals.stalls.time()
    }

    /// Ends the recording and returns its path.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn finish(self) -> Result<PathBuf> {
        if let Some((mut run, _)) = self.run {
            run.duration_s = self.seconds;
            self.writer.finish(&self.totals.summary(run, &self.totals.series()))?;
        }
        Ok(self.path)
    }
}

impl Sink for SideRecording {
    fn start(&mut self, run: &Run) -> Result<()> {
        if self.run.is_none() {
            self.writer.start(run)?;
            self.run = Some((run.clone(), run.started().unwrap_or(SystemTime::UNIX_EPOCH)));
        }
        Ok(())
    }

    fn interval(&mut self, interval: &Measured<'_>) -> Result<Option<Stop>> {
        let start = self.run.as_ref().map_or(SystemTime::UNIX_EPOCH, |(_, start)| *start);
        let shift = interval.started_at.duration_since(start).unwrap_or(Duration::ZERO);
        self.writer.interval_later(interval.all, shift)?;
        Ok(None)
    }
}
