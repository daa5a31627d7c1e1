//! The loop of a measurement: when it takes snapshots, reads ring buffers and measures costs.

use std::{future::Future, pin::pin, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync,
    time::{Instant, MissedTickBehavior, interval, interval_at, sleep_until},
};

use super::{
    Local,
    overhead::{Due, Schedule},
};
use crate::measure::{
    Notify, Sinks,
    pacing::{Ends, Stop},
};

/// How often the event ring buffer is read.
const EVENTS_POLL: Duration = Duration::from_millis(10);

/// How often stall records are read at least.
const RECORDS_POLL: Duration = Duration::from_secs(1);

/// How often rows are read at least: their counters have 32 bits, and one that advanced by half of
/// their range is misread. In a minute, that takes 35 million events a second in one bucket.
const ROWS_POLL: Duration = Duration::from_secs(60);

async fn notified(early: Option<&sync::Notify>) {
    match early {
        Some(early) => early.notified().await,
        None => std::future::pending().await,
    }
}

pub(super) async fn follow<S: Future<Output = Result<Stop>>>(
    measurement: &mut Local,
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
    let mut rows_polls = interval(ROWS_POLL);
    for timer in [&mut ticks, &mut events_polls, &mut records_polls, &mut rows_polls] {
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
            () = notified(ends.early.as_deref()) => {
                ticks.reset();
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
            _ = rows_polls.tick(), if period > ROWS_POLL => measurement.tracer.read_rows(),
            _ = records_polls.tick() => measurement.tracer.drain_records(),
            ready = records.readable() => {
                measurement.tracer.drain_records();
                ready.context("wait for the ring buffer of stalls")?.clear_ready();
            }
        }
    }
}
