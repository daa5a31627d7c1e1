//! A window: a period that is measured and recorded, with or without the change.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};

use super::{
    abort::{AbortRule, Limit, Stretches},
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
    model::{
        experiment::{Role, WindowSummary},
        note::Note,
    },
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
    /// Permissions of recordings.
    pub mode: u32,
    /// Minimum duration of a stall, ns.
    pub threshold_ns: u64,
    /// Limit that ends a window early; `None`: ten times the stalls of the worst stretch of equal
    /// length without the change.
    pub limit: Option<Limit>,
    /// The largest share of any CPU that the programs may take, 0 to 1; `None`: no limit.
    pub max_overhead: Option<f64>,
    /// The control socket of the daemon that measures; `None`: this process does.
    pub daemon: Option<PathBuf>,
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
    pub fn measurement(&self) -> MeasureConfig {
        let interval = self.length / LEAST_INTERVALS;
        MeasureConfig {
            tracer: Config { threshold_ns: self.threshold_ns, ..Config::new() },
            ifaces: self.ifaces.clone(),
            show_all: true,
            interval: interval.clamp(Duration::from_millis(100), Duration::from_secs(1)),
            max_overhead: self.max_overhead,
            daemon: self.daemon.clone(),
        }
    }

    /// Measures a window into its own recording at `path` and, except for a lead-in, into `side`.
    /// Windows with the change end early by what `stretches` holds; others add to it.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be traced, a recording cannot be written, or `is_over` said so.
    pub fn measure(
        &self,
        path: &Path,
        role: Role,
        mut side: Option<&mut SideRecording>,
        stretches: &mut Stretches,
        is_over: &mut dyn FnMut() -> bool,
    ) -> Result<Window> {
        let mut recording = RecordingSink::without_settings(path, self.mode)?;
        let (limit, netns, ifaces) = (self.limit, self.netns, &self.ifaces[..]);
        let mut rule: Box<dyn measure::sink::Sink + '_> = match role {
            Role::Changed => Box::new(AbortRule { limit, netns, ifaces, without: stretches }),
            Role::LeadIn | Role::Unchanged => Box::new(stretches.watch()),
        };
        let mut notify = |_, note: &Note| log::warn!("{note}");
        measure::block_on(async {
            let mut measurement = Measurement::start(&self.measurement())?;
            let before = guards::read(self.netns, &self.ifaces)?;
            let mut sinks: Vec<&mut dyn measure::sink::Sink> = vec![&mut recording, &mut *rule];
            if let Some(side) = &mut side {
                sinks.push(&mut **side);
            }
            let duration = Some(self.length);
            let ends = Ends {
                duration,
                signal: pacing::until(is_over),
                early: None,
                outlast_stages: true,
            };
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
                changed: role == Role::Changed,
                lead_in: role == Role::LeadIn,
                started_at: outcome.summary.run.started_at.clone(),
                recording: path.display().to_string(),
                duration_s: seconds,
                events: net_rx.count(),
                stalls: net_rx.over_threshold,
                stalls_per_second: net_rx.over_threshold as f64 / seconds.max(1e-3),
                max_ns: net_rx.max_ns,
                rates,
            };
            if let Some(side) = side {
                side.add(rates, seconds, outcome.totals);
            }
            Ok(Window { summary, aborted })
        })
    }
}
