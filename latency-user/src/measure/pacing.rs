//! The loop of a measurement: when it takes snapshots, reads ring buffers and measures costs, and
//! when it ends.

use std::{future::Future, pin::pin, time::Duration};

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

/// How often the event ring buffer is read.
const EVENTS_POLL: Duration = Duration::from_millis(10);

/// How often stall records are read at least.
const RECORDS_POLL: Duration = Duration::from_secs(1);

/// How often it is checked whether a measurement is over.
const FLAG_POLL: Duration = Duration::from_millis(10);

/// Why a measurement ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Stop {
    /// A signal, or another event that the caller waited for.
    Signal,
    /// Its duration has elapsed.
    Elapsed,
    /// The traced command has ended.
    Command,
    /// A sink aborted it because of what was measured.
    Aborted(Note),
    /// The reader of its output is gone.
    Closed,
    /// All stages were disabled.
    NothingTimed,
}

/// What ends a measurement.
pub struct Ends<S> {
    /// Maximum duration; `None`: no limit.
    pub duration: Option<Duration>,
    /// Ends the measurement when ready.
    pub signal: S,
    /// Whether to continue until `signal` is ready when `--max-overhead` has disabled all stages.
    pub outlast_stages: bool,
}

/// Becomes ready when `is_over` says so, for example because a signal arrived.
///
/// # Errors
///
/// Never; the type matches that of other signals.
pub async fn until(is_over: &mut dyn FnMut() -> bool) -> Result<Stop> {
    while !is_over() {
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
    // With long intervals, records must not pile up until their ring is full.
    let mut records_polls = interval(RECORDS_POLL.min(period));
    for timer in [&mut ticks, &mut events_polls, &mut records_polls] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut costs = Schedule::new();
    let attached = measurement.tracer.attached();
    let has_events = attached.events.is_some() || attached.logger.is_some();
    let records = attached.records_fd()?;
    // SAFETY: an `OwnedFd` refers to the same open descriptor for its lifetime.
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
