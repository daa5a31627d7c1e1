//! The measuring engine: the start, loop and end shared by all commands that trace a kernel.
//!
//! A [`Measurement`] owns the tracer, the header of the run, the totals, and the counters of the
//! host that are watched meanwhile. [`pacing`] is the loop, [`overhead`] limits the cost of the
//! programs, and [`sink`] receives intervals and the result. `trace`, `experiment` and `triage`
//! differ in their sinks and in when they end. Formats and prints nothing.

mod config;
pub mod overhead;
pub mod pacing;
pub mod recording;
pub mod sink;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    future::Future,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use latency_common::stage::Stage;
use tokio::runtime;

pub use self::config::MeasureConfig;
use self::{
    pacing::{Ends, Stop},
    sink::{Finished, Measured, Sink},
};
use crate::{
    analysis::totals::{RunEnd, SeriesTotal, Totals},
    collect::tracer::Tracer,
    host::{
        cpu::steal::StealWatch,
        kernel,
        net::tcp_pressure,
        process::usage::{self, Usage},
    },
    model::{
        cost::SelfCost,
        filter::Filter,
        interval::Interval,
        ledger::Ledger,
        note::Note,
        run::Run,
        series::Series,
        stall::{batch::StallBatch, time::CpuSteal},
        summary::Summary,
    },
};

/// Sinks of a measurement, in the order in which they are called.
pub type Sinks<'a, 'b> = &'a mut [&'b mut dyn Sink];

/// Reports a note to the user at once, with the stage that it concerns.
pub type Notify<'a> = &'a mut dyn FnMut(Option<Stage>, &Note);

/// A measurement in progress. Dropping it detaches everything from the kernel.
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
///     let ends = Ends { duration, signal: future::pending(), outlast_stages: false };
///     measurement.follow(ends, &mut [], &mut |_, note| eprintln!("{note}")).await?;
///     measurement.finish(&mut [], &mut |_, note| eprintln!("{note}"))
/// })?;
/// println!("{:?}", outcome.summary.stalls.by_stage);
/// # Ok::<(), anyhow::Error>(())
/// ```
pub struct Measurement {
    tracer: Tracer,
    run: Run,
    filter: Filter,
    interval: Duration,
    max_overhead: Option<f64>,
    started: Instant,
    /// As in the header of the run: rounded down to milliseconds.
    started_at: SystemTime,
    interval_started: (Instant, SystemTime),
    usage_before: Usage,
    usage_started: Usage,
    totals: Totals,
    pressure: tcp_pressure::Watch,
    steal: StealWatch,
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

impl Measurement {
    /// Attaches the programs and starts to measure.
    ///
    /// # Errors
    ///
    /// As [`Tracer::start`]; nothing stays attached then.
    pub fn start(config: &MeasureConfig) -> Result<Self> {
        let root = Path::new("/");
        let usage_before = usage::of_this_process();
        let tracer = Tracer::start(&config.tracer)?;
        let usage_started = usage::of_this_process();
        let (started, started_at) = (Instant::now(), truncate_to_milliseconds(SystemTime::now()));
        let run = Run {
            host: kernel::hostname(root)?,
            kernel: kernel::release(root)?,
            started_at: humantime::format_rfc3339_millis(started_at).to_string(),
            duration_s: 0.0,
            ifaces: config.ifaces.clone(),
            threshold_ns: tracer.threshold_ns(),
            transport: tracer.transport(),
            probes: tracer.probes().to_vec(),
            sampling: tracer.sampling(),
            cpus: tracer.cpus(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let ifaces = if config.show_all { Vec::new() } else { config.ifaces.clone() };
        let filter = Filter { irqs: tracer.naming().irqs_of(&ifaces), ifaces };
        Ok(Self {
            tracer,
            run,
            filter,
            interval: config.interval,
            max_overhead: config.max_overhead,
            started,
            started_at,
            interval_started: (started, started_at),
            usage_before,
            usage_started,
            totals: Totals::default(),
            pressure: tcp_pressure::Watch::new(root),
            steal: StealWatch::new(root),
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

    /// Takes a snapshot at each interval and passes it to the sinks, until the run ends.
    ///
    /// # Errors
    ///
    /// When the kernel's counters cannot be read, or a sink fails.
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
        pacing::follow(self, ends, sinks, notify).await
    }

    /// Detaches the programs and passes the last interval and the result to the sinks.
    ///
    /// # Errors
    ///
    /// As [`Self::follow`].
    pub fn finish(mut self, sinks: Sinks<'_, '_>, notify: Notify<'_>) -> Result<Outcome> {
        self.run.duration_s = self.elapsed().as_secs_f64();
        let ledger = self.tracer.finish();
        self.drain();
        let interval = self.take_interval()?;
        let shown = self.filter.apply(&interval);
        self.totals.add(&shown);
        for sink in sinks.iter_mut() {
            sink.last_interval(&self.measured(&interval, &shown))?;
        }
        let outcome = self.outcome(ledger)?;
        let finished = Finished { summary: &outcome.summary, series: &outcome.series };
        for sink in sinks.iter_mut() {
            sink.finish(&finished)?;
        }
        report_notes(sinks, notify);
        Ok(outcome)
    }

    fn measured<'a>(&'a self, interval: &'a Interval, shown: &'a Interval) -> Measured<'a> {
        Measured {
            run: &self.run,
            started_at: self.started_at,
            elapsed: self.elapsed(),
            all: interval,
            shown,
            totals: &self.totals,
        }
    }

    /// The interval since the last call.
    fn take_interval(&mut self) -> Result<Interval> {
        let now = (Instant::now(), SystemTime::now());
        let (since, started_at) = std::mem::replace(&mut self.interval_started, now);
        let series = self.tracer.take_series()?;
        self.filter.irqs.extend(self.tracer.naming().irqs_of(&self.filter.ifaces));
        let mut batch = self.tracer.take_stalls();
        let steal = self.steal.since_last().map(|taken| steal_of(&taken, &mut batch));
        Ok(Interval {
            start: started_at.duration_since(self.started_at).unwrap_or_default(),
            duration: now.0 - since,
            series,
            batch,
            steal,
            merged: None,
        })
    }

    /// Passes the interval since the last call to the sinks.
    fn interval(&mut self, sinks: Sinks<'_, '_>, notify: Notify<'_>) -> Result<Option<Stop>> {
        let interval = self.take_interval()?;
        let shown: Cow<'_, Interval> = self.filter.apply(&interval);
        self.pressure.read_if_due();
        self.totals.add(&shown);
        let measured = self.measured(&interval, &shown);
        let mut stop = None;
        for sink in sinks.iter_mut() {
            stop = stop.or(sink.interval(&measured)?);
        }
        report_notes(sinks, notify);
        Ok(stop)
    }

    /// Reads all pending events and kernel-side warnings.
    fn drain(&mut self) {
        while self.tracer.drain_events() {}
        if let Some(logger) = &mut self.tracer.attached().logger {
            logger.flush();
        }
    }

    fn outcome(mut self, ledger: Ledger) -> Result<Outcome> {
        let mut series = self.tracer.total();
        series.retain(|series| self.filter.keeps(series));
        // Uses the names that are known now: a queue may have had no number at first.
        self.totals.series = series
            .iter()
            .map(|series| {
                let distribution = series.distribution.clone();
                (series.id.clone(), SeriesTotal { attrs: series.attrs, distribution })
            })
            .collect();
        let usage = usage::of_this_process();
        let self_cost = SelfCost {
            programs: self.tracer.programs(),
            row_bytes: self.tracer.row_bytes(),
            user_cpu_s: (usage.cpu - self.usage_started.cpu).as_secs_f64(),
            startup_cpu_s: (self.usage_started.cpu - self.usage_before.cpu).as_secs_f64(),
            resident_bytes: usage.resident_bytes,
            kernel: self.tracer.kernel_cost()?,
        };
        self.totals.end = Some(RunEnd { ledger, self_cost, tcp: self.pressure.finish() });
        let summary = self.totals.summary(self.run, &series);
        Ok(Outcome { summary, series, totals: self.totals })
    }
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

/// What the hypervisor took of each CPU of which it took something, or on which a stall ended. Sets
/// it in the stalls, too.
fn steal_of(taken: &BTreeMap<u32, u64>, batch: &mut StallBatch) -> Vec<CpuSteal> {
    for stall in &mut batch.stalls {
        stall.steal_ns = taken.get(&stall.cpu).copied();
    }
    let steal = taken.iter().map(|(&cpu, &steal_ns)| {
        let times = batch.times.iter().filter(|time| time.cpu == Some(cpu));
        let stalls = times.map(|time| time.time.stalls).sum();
        let stalls_then = if steal_ns > 0 { stalls } else { 0 };
        CpuSteal { host: None, cpu, steal_ns, stalls, stalls_then }
    });
    steal.filter(|cpu| cpu.steal_ns > 0 || cpu.stalls > 0).collect()
}

fn report_notes(sinks: Sinks<'_, '_>, notify: Notify<'_>) {
    for sink in sinks.iter_mut() {
        for note in sink.take_notes() {
            notify(None, &note);
        }
    }
}

/// The header of a recording has millisecond precision.
fn truncate_to_milliseconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_millis(since.as_millis() as u64)
}
