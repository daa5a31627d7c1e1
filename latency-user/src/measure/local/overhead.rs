//! Overhead: measures the cost of the programs periodically; if too high, disables stages.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::Local;
use crate::measure::{Notify, Sinks, report_notes};

/// How often the cost of the programs is measured, for how long, and when first. Measuring adds
/// clock readings to each run of a program.
const MEASURE_EVERY: Duration = Duration::from_secs(2);
const MEASURE_FOR: Duration = Duration::from_millis(200);
const MEASURE_FIRST: Duration = Duration::from_millis(200);

/// The action that is due.
pub(super) enum Due {
    /// Start the measurement.
    Start,
    /// End the measurement.
    End,
}

/// When the cost is measured.
pub(super) struct Schedule {
    starts: Interval,
    end: Option<Instant>,
}

impl Schedule {
    pub(super) fn new() -> Self {
        let mut starts = interval_at(Instant::now() + MEASURE_FIRST, MEASURE_EVERY);
        starts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { starts, end: None }
    }

    /// Waits until an action is due.
    pub(super) async fn due(&mut self) -> Due {
        match self.end {
            Some(end) => {
                sleep_until(end).await;
                self.end = None;
                Due::End
            }
            None => {
                self.starts.tick().await;
                self.end = Some(Instant::now() + MEASURE_FOR);
                Due::Start
            }
        }
    }
}

impl Local {
    /// Ends a measurement of the cost. If it is above the limit, disables the stage that saves
    /// most. Returns whether a stage is still timed.
    pub(super) fn check_overhead(
        &mut self,
        sinks: Sinks<'_, '_>,
        notify: Notify<'_>,
    ) -> Result<bool> {
        let (Some(sample), Some(limit)) = (self.tracer.end_cost_measurement(), self.max_overhead)
        else {
            return Ok(true);
        };
        if sample.busiest_share() <= limit {
            return Ok(true);
        }
        let after_s = self.elapsed().as_secs_f64();
        let disabled = self.tracer.disable_most_expensive(&sample, after_s, limit)?;
        let Some((stage, note)) = disabled else { return Ok(true) };
        notify(Some(stage), &note);
        self.run.probes = self.tracer.probes().to_vec();
        for sink in sinks.iter_mut() {
            sink.run_changed(&self.run)?;
        }
        report_notes(sinks, notify);
        Ok(self.tracer.times_something())
    }
}
