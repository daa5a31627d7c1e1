//! A window: a period that is measured and recorded, with or without the change.

use std::{path::Path, sync::atomic::AtomicBool, time::Duration};

use anyhow::{Result, bail};

use super::{
    abort::{AbortRule, Limit},
    guards,
    side::SideRecording,
};
use crate::{
    collect::config::Config,
    measure::{
        self, MeasureConfig, Measurement,
        pacing::{self, Ends, Stop},
        recording::RecordingSink,
    },
    model::{experiment::WindowSummary, note::Note},
};

/// Minimum number of snapshots in a window: a comparison resamples intervals.
const LEAST_INTERVALS: u32 = 10;

/// How windows are measured.
#[derive(Clone, Debug)]
pub struct WindowConfig {
    /// Duration of a window.
    pub length: Duration,
    /// Inode of the network namespace whose counters the guards read.
    pub netns: u32,
    /// Interfaces whose counters the guards read; empty: all.
    pub ifaces: Vec<String>,
    /// Minimum duration of a stall, ns.
    pub threshold_ns: u64,
    /// Limit that ends a window early; `None`: ten times the stall rate.
    pub limit: Option<Limit>,
    /// The largest share of any CPU that the programs may take, 0 to 1; `None`: no limit.
    pub max_overhead: Option<f64>,
}

/// A measured window.
pub struct Window {
    /// Its numbers.
    pub summary: WindowSummary,
    /// Why it ended early; `None`: it did not.
    pub aborted: Option<Note>,
}

impl WindowConfig {
    /// The configuration of the measurement.
    fn measurement(&self) -> MeasureConfig {
        let interval = self.length / LEAST_INTERVALS;
        MeasureConfig {
            tracer: Config { threshold_ns: self.threshold_ns, ..Config::new() },
            ifaces: self.ifaces.clone(),
            show_all: true,
            interval: interval.clamp(Duration::from_millis(100), Duration::from_secs(1)),
            max_overhead: self.max_overhead,
        }
    }

    fn abort_rule(&self, baseline: f64) -> AbortRule {
        AbortRule { limit: self.limit, netns: self.netns, ifaces: self.ifaces.clone(), baseline }
    }

    /// Measures a window into its own recording at `path` and into `side`. `baseline`, the highest
    /// stall rate per second without the change, is given for windows that may end early.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be traced, a recording cannot be written, or `stop` was set.
    pub fn measure(
        &self,
        path: &Path,
        side: &mut SideRecording,
        baseline: Option<f64>,
        stop: &AtomicBool,
    ) -> Result<Window> {
        let mut recording = RecordingSink::without_settings(path)?;
        let mut abort = baseline.map(|baseline| self.abort_rule(baseline));
        let mut notify = |_, note: &Note| log::warn!("{note}");
        measure::block_on(async {
            let mut measurement = Measurement::start(&self.measurement())?;
            let before = guards::read(self.netns, &self.ifaces)?;
            let mut sinks: Vec<&mut dyn measure::sink::Sink> = vec![&mut recording, &mut *side];
            sinks.extend(abort.as_mut().map(|rule| rule as &mut dyn measure::sink::Sink));
            let duration = Some(self.length);
            let ends = Ends { duration, signal: pacing::flag(stop), outlast_stages: true };
            let stopped = measurement.follow(ends, &mut sinks, &mut notify).await?;
            let after = guards::read(self.netns, &self.ifaces)?;
            let aborted = match stopped {
                Stop::Signal => bail!("interrupted"),
                Stop::Aborted(note) => Some(note),
                _ => None,
            };
            let outcome = measurement.finish(&mut sinks, &mut notify)?;
            if recording.has_failed() {
                bail!("cannot write recording {}", path.display());
            }
            let seconds = outcome.summary.run.duration_s;
            let rates = guards::rates(&before, &after, seconds);
            let net_rx = outcome.totals.net_rx();
            let summary = WindowSummary {
                changed: baseline.is_some(),
                recording: path.display().to_string(),
                duration_s: seconds,
                events: net_rx.count(),
                stalls: net_rx.over_threshold,
                max_ns: net_rx.max_ns,
                rates,
            };
            side.add(rates, seconds, outcome.totals);
            Ok(Window { summary, aborted })
        })
    }
}
