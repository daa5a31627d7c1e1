//! A measurement by a daemon: it traces already, and passes its intervals on.

use std::{
    collections::BTreeSet,
    future::Future,
    io::{BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    pin::pin,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use tokio::{
    sync::mpsc::{UnboundedReceiver, error::TryRecvError, unbounded_channel},
    time::sleep_until,
};

use super::{
    MeasureConfig, Notify, Outcome, Sinks,
    daemon::{self, Connection, END, Request},
    pacing::{Ends, Stop},
    report_notes,
    sink::{Finished, Measured},
};
use crate::{
    analysis::totals::{RunEnd, Totals},
    host::net::interfaces,
    model::{
        failure::Failure, filter::Filter, interval::Interval, run::Run, series::Series,
        stall::batch::StallBatch, summary::Summary,
    },
    recording::reader::{ReadError, Reader, RecordingEntry},
};

/// How long the start and the end of a recording are waited for, and how often.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(1);

/// Follows a daemon.
pub struct Attached {
    socket: PathBuf,
    stream: UnixStream,
    entries: UnboundedReceiver<Result<RecordingEntry, ReadError>>,
    run: Run,
    filter: Filter,
    started: Instant,
    started_at: SystemTime,
    totals: Totals,
    /// Came last: whether it is the last of all shows only by what follows.
    pending: Option<Interval>,
    end: Option<Summary>,
}

impl Attached {
    /// Attaches to the daemon at `socket`, and waits for its header.
    ///
    /// # Errors
    ///
    /// When it does not answer or refuses.
    pub fn start(config: &MeasureConfig, socket: &Path) -> Result<Self> {
        let Connection { stream, .. } = daemon::ask(socket, &Request::Follow)?;
        let writer = stream.get_ref().try_clone().context("attach to the daemon")?;
        let mut entries = read(stream, socket);
        let first = next(&mut entries).ok_or_else(|| gone(socket))??;
        let RecordingEntry::Run(run) = first else { bail!(gone(socket)) };
        let ifaces = if config.show_all { Vec::new() } else { config.ifaces.clone() };
        let irqs = irqs_of(&ifaces);
        let started_at = run.started().unwrap_or_else(SystemTime::now);
        Ok(Self {
            socket: socket.to_owned(),
            stream: writer,
            entries,
            run: Run { ifaces: config.ifaces.clone(), ..run },
            filter: Filter { ifaces, irqs },
            started: Instant::now(),
            started_at,
            totals: Totals::default(),
            pending: None,
            end: None,
        })
    }

    /// The header of the run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Time since it started.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// As [`Measurement::follow`](super::Measurement::follow).
    ///
    /// # Errors
    ///
    /// When the daemon has ended, or a sink fails.
    pub async fn follow<S: Future<Output = Result<Stop>>>(
        &mut self,
        ends: Ends<S>,
        sinks: Sinks<'_, '_>,
        notify: Notify<'_>,
    ) -> Result<Stop> {
        for sink in sinks.iter_mut() {
            sink.start(&self.run)?;
        }
        report_notes(sinks, notify);
        let mut signal = pin!(ends.signal);
        let end = ends.duration.map(|duration| tokio::time::Instant::now() + duration);
        loop {
            tokio::select! {
                biased;
                stop = &mut signal => return stop,
                () = sleep_until(end.unwrap_or_else(tokio::time::Instant::now)), if end.is_some() => {
                    return Ok(Stop::Elapsed);
                }
                entry = self.entries.recv() => {
                    let Some(entry) = entry else { bail!(gone(&self.socket)) };
                    if let Some(stop) = self.take(entry?, sinks, notify)? {
                        return Ok(stop);
                    }
                }
            }
        }
    }

    /// As [`Measurement::finish`](super::Measurement::finish).
    ///
    /// # Errors
    ///
    /// When a sink fails. A daemon that has ended leaves no ledger.
    pub fn finish(mut self, sinks: Sinks<'_, '_>, notify: Notify<'_>) -> Result<Outcome> {
        // It may have gone, which shows in what comes.
        let _ = self.stream.write_all(format!("{END}\n").as_bytes());
        while self.end.is_none()
            && let Some(Ok(entry)) = next(&mut self.entries)
        {
            self.take(entry, sinks, notify)?;
        }
        self.run.duration_s = self.elapsed().as_secs_f64();
        let last = self.pending.take();
        let last =
            last.unwrap_or_else(|| Interval::new(self.totals.length, Duration::ZERO, Vec::new()));
        let shown = self.filter.apply(&last);
        self.totals.add(&shown);
        for sink in sinks.iter_mut() {
            sink.last_interval(&self.measured(&last, &shown))?;
        }
        let outcome = self.outcome();
        let finished = Finished { summary: &outcome.summary, series: &outcome.series };
        for sink in sinks.iter_mut() {
            sink.finish(&finished)?;
        }
        report_notes(sinks, notify);
        Ok(outcome)
    }

    fn take(
        &mut self,
        entry: RecordingEntry,
        sinks: Sinks<'_, '_>,
        notify: Notify<'_>,
    ) -> Result<Option<Stop>> {
        match entry {
            RecordingEntry::Interval(interval) => {
                let interval = known(interval);
                let Some(before) = self.pending.replace(interval) else { return Ok(None) };
                self.pass_on(&before, sinks, notify)
            }
            RecordingEntry::Run(run) => {
                self.run.change_to(&run);
                for sink in sinks.iter_mut() {
                    sink.run_changed(&self.run)?;
                }
                Ok(None)
            }
            RecordingEntry::Summary(summary) => {
                self.end = Some(*summary);
                Ok(None)
            }
            RecordingEntry::Settings(_) | RecordingEntry::Merge(_) => Ok(None),
        }
    }

    fn pass_on(
        &mut self,
        interval: &Interval,
        sinks: Sinks<'_, '_>,
        notify: Notify<'_>,
    ) -> Result<Option<Stop>> {
        let queues = interval.series.iter().filter(|series| {
            series.labels().iface.is_some_and(|iface| self.filter.ifaces.contains(&iface))
        });
        let irqs: Vec<u32> = queues.filter_map(|series| series.attrs.irq).collect();
        self.filter.irqs.extend(irqs);
        let shown = self.filter.apply(interval);
        self.totals.add(&shown);
        let measured = self.measured(interval, &shown);
        let mut stop = None;
        for sink in sinks.iter_mut() {
            stop = stop.or(sink.interval(&measured)?);
        }
        report_notes(sinks, notify);
        Ok(stop)
    }

    fn measured<'a>(&'a self, all: &'a Interval, shown: &'a Interval) -> Measured<'a> {
        Measured {
            run: &self.run,
            started_at: self.started_at,
            elapsed: self.elapsed(),
            all,
            shown,
            totals: &self.totals,
            so_far: None,
        }
    }

    fn outcome(mut self) -> Outcome {
        self.totals.end = self.end.take().map(|summary| RunEnd {
            ledger: summary.ledger,
            self_cost: summary.self_cost,
            tcp: summary.stalls.tcp,
        });
        let series: Vec<Series> = self.totals.series();
        let summary = self.totals.summary(self.run, &series);
        Outcome { summary, series, totals: self.totals }
    }
}

/// The next entry, for callers that cannot wait in the event loop; `None`: none comes.
fn next(
    entries: &mut UnboundedReceiver<Result<RecordingEntry, ReadError>>,
) -> Option<Result<RecordingEntry, ReadError>> {
    let end = Instant::now() + PATIENCE;
    loop {
        match entries.try_recv() {
            Ok(entry) => return Some(entry),
            Err(TryRecvError::Empty) if Instant::now() < end => thread::sleep(POLL),
            Err(_) => return None,
        }
    }
}

/// Reads the recording on a thread of its own, until the socket is closed.
fn read(
    stream: BufReader<UnixStream>,
    socket: &Path,
) -> UnboundedReceiver<Result<RecordingEntry, ReadError>> {
    let (to, entries) = unbounded_channel();
    let path = socket.to_owned();
    thread::spawn(move || {
        let mut reader = Reader::from_input(&path, Box::new(stream));
        loop {
            match reader.next_entry() {
                Ok(Some(entry)) => {
                    if to.send(Ok(entry)).is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    let _ = to.send(Err(error));
                    return;
                }
            }
        }
    });
    entries
}

fn gone(socket: &Path) -> Failure {
    Failure::new(format!("the daemon at {} has ended", socket.display()))
        .hint("its log says why: journalctl -u latency-user")
}

/// The series of this version.
fn known(interval: Interval<crate::model::series::SeriesKey>) -> Interval {
    let series = interval.series.into_iter().filter_map(|series| {
        let id = series.id.known()?.clone();
        Some(Series { id, attrs: series.attrs, distribution: series.distribution })
    });
    let batch: StallBatch = interval.batch;
    Interval {
        start: interval.start,
        duration: interval.duration,
        series: series.collect(),
        batch,
        steal: interval.steal,
        merged: None,
    }
}

/// The hard IRQs of these interfaces, as far as the host tells them without a tracer.
fn irqs_of(ifaces: &[String]) -> BTreeSet<u32> {
    let all = interfaces::list(Path::new("/")).unwrap_or_default();
    let wanted = all.iter().filter(|interface| ifaces.contains(&interface.name));
    wanted.flat_map(|interface| interface.msi_irqs.iter().copied()).collect()
}
