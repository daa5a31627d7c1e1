//! The loop of a measurement: when snapshots are taken, ring buffers read and costs measured, and
//! what ends it.

use std::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, MissedTickBehavior, interval, interval_at, sleep, sleep_until},
};

use super::{
    Measurement, Notify, Sinks,
    overhead::{Due, Schedule},
};
use crate::model::note::Note;

/// How often the ring buffer of events is looked at.
const EVENTS_POLL: Duration = Duration::from_millis(10);

/// How often records of stalls are read at least.
const RECORDS_POLL: Duration = Duration::from_secs(1);

/// How often a flag is looked at.
const FLAG_POLL: Duration = Duration::from_millis(10);

/// Why a measurement ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Stop {
    /// By a signal, or whatever else its owner waited for.
    Signal,
    /// Its time is over.
    Elapsed,
    /// The traced command has ended.
    Command,
    /// What it measured is a reason to end it.
    Aborted(Note),
    /// Nobody reads its output any more.
    Closed,
    /// No stage is left that may be timed.
    NothingTimed,
}

/// What ends a measurement.
pub struct Ends<S> {
    /// After so long; `None`: not by time.
    pub duration: Option<Duration>,
    /// When this is ready.
    pub signal: S,
    /// Whether to go on when `--max-overhead` leaves no stage, until `signal` is ready.
    pub outlast_stages: bool,
}

/// Ready when `flag` is set, as a signal handler does.
///
/// # Errors
///
/// None: the type is that of other signals.
pub async fn flag(flag: &AtomicBool) -> Result<Stop> {
    while !flag.load(Ordering::Relaxed) {
        sleep(FLAG_POLL).await;
    }
    Ok(Stop::Signal)
}

pub(super) async fn follow<S: Future<Output = Result<Stop>>>(
    measurement: &mut Measurement,
    ends: Ends<S>,
    sinks: Sinks<'_, '_>,
    notify: Notify<'_>,
) -> Result<Stop> {
    let period = measurement.interval;
    let mut signal = pin!(ends.signal);
    let end = ends.duration.map(|duration| Instant::now() + duration);
    let mut ticks = interval_at(Instant::now() + period, period);
    let mut events_polls = interval(EVENTS_POLL);
    // Long intervals must not let records pile up until their ring is full.
    let mut records_polls = interval(RECORDS_POLL.min(period));
    for timer in [&mut ticks, &mut events_polls, &mut records_polls] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut costs = Schedule::new();
    let attached = measurement.tracer.attached();
    let has_events = attached.events.is_some() || attached.logger.is_some();
    let records = attached.records_fd()?;
    // SAFETY: an `OwnedFd` stands for one and the same open descriptor as long as it lives.
    let records = unsafe { AsyncFd::register_with_interest(records, Interest::READABLE) }
        .context("wait for the ring buffer of stalls")?;
    loop {
        tokio::select! {
            biased;
            stop = &mut signal => return stop,
            () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {
                return Ok(Stop::Elapsed);
            }
            _ = ticks.tick() => {
                if let Some(stop) = measurement.interval(sinks, notify)? {
                    return Ok(stop);
                }
            }
            _ = events_polls.tick(), if has_events => measurement.drain(),
            due = costs.due() => match due {
                Due::Start => measurement.tracer.start_cost_measurement(),
                Due::End => {
                    if !measurement.check_overhead(sinks, notify)? && !ends.outlast_stages {
                        return Ok(Stop::NothingTimed);
                    }
                }
            },
            _ = records_polls.tick() => measurement.tracer.drain_records(),
            ready = records.readable() => {
                measurement.tracer.drain_records();
                ready.context("wait for the ring buffer of stalls")?.clear_ready();
            }
        }
    }
}
