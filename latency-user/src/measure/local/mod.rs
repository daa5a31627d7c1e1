//! A measurement with a tracer of this process. [`mod@follow`] is its loop, [`overhead`] limits the
//! cost of the programs, [`hotplug`] tells of CPUs that come online.

mod follow;
mod hotplug;
mod overhead;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    future::Future,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;

use self::hotplug::CpuWatch;

use super::{
    MeasureConfig, Notify, Outcome, Sinks,
    pacing::{Ends, Stop},
    report_notes,
    sink::{Finished, Measured, SoFar},
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
        run::Run,
        stall::{batch::StallBatch, time::CpuSteal},
    },
};

/// Owns the tracer. Dropping it detaches everything from the kernel.
pub struct Local {
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
    cpu_watch: CpuWatch,
}

impl Local {
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
            cpu_watch: CpuWatch::new(config.tracer.sample_hz),
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
        follow::follow(self, ends, sinks, notify).await
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
            sink.last_interval(&self.measured(&interval, &shown, None))?;
        }
        let outcome = self.outcome(ledger)?;
        let finished = Finished { summary: &outcome.summary, series: &outcome.series };
        for sink in sinks.iter_mut() {
            sink.finish(&finished)?;
        }
        report_notes(sinks, notify);
        Ok(outcome)
    }

    fn measured<'a>(
        &'a self,
        interval: &'a Interval,
        shown: &'a Interval,
        so_far: Option<&'a SoFar>,
    ) -> Measured<'a> {
        Measured {
            run: &self.run,
            started_at: self.started_at,
            elapsed: self.elapsed(),
            all: interval,
            shown,
            totals: &self.totals,
            so_far,
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
        self.check_cpus(sinks, notify)?;
        let needs_so_far = sinks.iter().any(|sink| sink.needs_so_far());
        if needs_so_far {
            self.tracer.note_started();
        }
        let interval = self.take_interval()?;
        let shown: Cow<'_, Interval> = self.filter.apply(&interval);
        self.pressure.read_if_due();
        if sinks.iter().any(|sink| sink.needs_totals()) {
            self.totals.add(&shown);
        }
        let so_far = match needs_so_far {
            true => Some(SoFar {
                ledger: self.tracer.ledger_so_far(),
                self_cost: self.self_cost()?,
                tcp: self.pressure.so_far(),
            }),
            false => None,
        };
        let measured = self.measured(&interval, &shown, so_far.as_ref());
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

    /// What the measurement has cost so far.
    fn self_cost(&self) -> Result<SelfCost> {
        let usage = usage::of_this_process();
        Ok(SelfCost {
            programs: self.tracer.programs(),
            row_bytes: self.tracer.row_bytes(),
            user_cpu_s: (usage.cpu - self.usage_started.cpu).as_secs_f64(),
            startup_cpu_s: (self.usage_started.cpu - self.usage_before.cpu).as_secs_f64(),
            resident_bytes: usage.resident_bytes,
            kernel: self.tracer.kernel_cost()?,
        })
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
        let self_cost = self.self_cost()?;
        self.totals.end = Some(RunEnd { ledger, self_cost, tcp: self.pressure.finish() });
        let summary = self.totals.summary(self.run, &series);
        Ok(Outcome { summary, series, totals: self.totals })
    }
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

/// The header of a recording has millisecond precision.
fn truncate_to_milliseconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_millis(since.as_millis() as u64)
}
