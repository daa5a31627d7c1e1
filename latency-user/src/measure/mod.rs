//! The measuring engine: the start, loop and end shared by all commands that trace a kernel.
//!
//! A [`Measurement`] is [`local`], with a tracer of this process, or [`attached`] to a daemon that
//! traces already. [`pacing`] says when it ends, and [`sink`] receives intervals and the result. `trace`, `experiment` and `triage`
//! differ in their sinks and in when they end. Formats and prints nothing.

pub mod attached;
mod config;
pub mod daemon;
pub mod local;
pub mod pacing;
pub mod recording;
pub mod sink;

use std::{future::Future, time::Duration};

use anyhow::{Context, Result};
use latency_common::stage::Stage;
use tokio::runtime;

pub use self::config::MeasureConfig;
use self::{
    attached::Attached,
    local::Local,
    pacing::{Ends, Stop},
    sink::Sink,
};
use crate::{
    analysis::totals::Totals,
    model::{note::Note, run::Run, series::Series, summary::Summary},
};

/// Sinks of a measurement, in the order in which they are called.
pub type Sinks<'a, 'b> = &'a mut [&'b mut dyn Sink];

/// Reports a note to the user at once, with the stage that it concerns.
pub type Notify<'a> = &'a mut dyn FnMut(Option<Stage>, &Note);

/// A measurement in progress. Dropping it ends it.
///
/// ```no_run
/// use std::{future, time::Duration};
///
/// use latency_user::measure::{MeasureConfig, Measurement, block_on, pacing::Ends};
///
/// // For ten seconds, without a sink: only the result matters. Needs root.
/// let outcome = block_on(async {
///     let mut measurement = Measurement::start(&MeasureConfig::new())?;
///     let duration = Some(Duration::from_secs(10));
///     let ends = Ends { duration, signal: future::pending(), early: None, outlast_stages: false };
///     measurement.follow(ends, &mut [], &mut |_, note| eprintln!("{note}")).await?;
///     measurement.finish(&mut [], &mut |_, note| eprintln!("{note}"))
/// })?;
/// println!("{:?}", outcome.summary.stalls.by_stage);
/// # Ok::<(), anyhow::Error>(())
/// ```
pub enum Measurement {
    /// With a tracer of this process.
    Local(Box<Local>),
    /// Attached to a daemon.
    Attached(Box<Attached>),
}

impl Measurement {
    /// Attaches the programs and starts to measure; or attaches to the daemon that the configuration
    /// names.
    ///
    /// # Errors
    ///
    /// As [`Local::start`] and [`Attached::start`]; nothing stays attached then.
    pub fn start(config: &MeasureConfig) -> Result<Self> {
        Ok(match &config.daemon {
            Some(socket) => Self::Attached(Box::new(Attached::start(config, socket)?)),
            None => Self::Local(Box::new(Local::start(config)?)),
        })
    }

    /// The header of the run.
    pub fn run(&self) -> &Run {
        match self {
            Self::Local(local) => local.run(),
            Self::Attached(attached) => attached.run(),
        }
    }

    /// Time since it started.
    pub fn elapsed(&self) -> Duration {
        match self {
            Self::Local(local) => local.elapsed(),
            Self::Attached(attached) => attached.elapsed(),
        }
    }

    /// Takes a snapshot at each interval and passes it to the sinks, until the run ends.
    ///
    /// # Errors
    ///
    /// When the kernel's counters cannot be read, the daemon has ended, or a sink fails.
    pub async fn follow<S: Future<Output = Result<Stop>>>(
        &mut self,
        ends: Ends<S>,
        sinks: Sinks<'_, '_>,
        notify: Notify<'_>,
    ) -> Result<Stop> {
        match self {
            Self::Local(local) => local.follow(ends, sinks, notify).await,
            Self::Attached(attached) => attached.follow(ends, sinks, notify).await,
        }
    }

    /// Ends it, and passes the last interval and the result to the sinks.
    ///
    /// # Errors
    ///
    /// As [`Self::follow`].
    pub fn finish(self, sinks: Sinks<'_, '_>, notify: Notify<'_>) -> Result<Outcome> {
        match self {
            Self::Local(local) => local.finish(sinks, notify),
            Self::Attached(attached) => attached.finish(sinks, notify),
        }
    }
}

/// The result of a measurement.
pub struct Outcome {
    /// The summary of the shown series.
    pub summary: Summary,
    /// The shown series.
    pub series: Vec<Series>,
    /// Their totals.
    pub totals: Totals,
}

/// Runs `body`, a measurement, to completion on this thread.
///
/// # Errors
///
/// When the kernel refuses an event loop, or as `body`.
pub fn block_on<T>(body: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    runtime.block_on(body)
}

fn report_notes(sinks: Sinks<'_, '_>, notify: Notify<'_>) {
    for sink in sinks.iter_mut() {
        for note in sink.take_notes() {
            notify(None, &note);
        }
    }
}
