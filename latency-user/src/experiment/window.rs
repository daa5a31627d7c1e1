//! A window: a stretch of time that is measured and recorded, with or without the change.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Result, bail};
use latency_common::stage::Stage;

use super::{
    abort::{self, Limit},
    guards,
};
use crate::{
    analysis::stall_totals::StallTotals,
    collect::{
        config::{Config, DEFAULT_SAMPLE_HZ},
        stalls::Learned,
        tracer::Tracer,
    },
    host::{kernel, net::tcp_pressure, process::usage},
    kernel::probes::sampler,
    model::{
        cost::{KernelCost, SelfCost},
        distribution::Distribution,
        duration_classes::Lengths,
        experiment::{Rates, WindowSummary},
        interval::Interval,
        ledger::Ledger,
        run::{Run, Sampling, Transport},
        series::Series,
        summary::{SeriesSummary, Stalls, Summary},
        tcp_pressure::TcpPressure,
    },
    recording::{merge::add_ledger, writer::Writer},
};

/// How often records of stalls are fetched and reasons to end are looked for.
const TICK: Duration = Duration::from_millis(10);

/// Snapshots in a window, at least: a comparison resamples intervals.
const LEAST_INTERVALS: u32 = 10;

/// What a window measures.
#[derive(Clone, Debug)]
pub struct Look {
    /// How long.
    pub length: Duration,
    /// Inode of the network namespace that the guards belong to.
    pub netns: u32,
    /// Interfaces that the guards belong to; empty: all.
    pub ifaces: Vec<String>,
    /// Stalls begin here, ns.
    pub threshold_ns: u64,
    /// What ends a window early; `None`: ten times the stalls.
    pub limit: Option<Limit>,
}

/// All windows of one kind as one recording.
pub struct Side {
    path: PathBuf,
    writer: Writer,
    run: Option<Run>,
    sums: Sums,
    /// The guards of each window.
    pub rates: Vec<Rates>,
}

/// Sums over intervals.
#[derive(Default)]
struct Sums {
    seconds: f64,
    series: BTreeMap<Series, Distribution>,
    totals: StallTotals,
    ledger: Option<Ledger>,
    cost: SelfCost,
}

/// A measured window.
pub struct Measured {
    /// In numbers.
    pub summary: WindowSummary,
    /// Why it ended early; `None`: it did not.
    pub aborted: Option<String>,
}

impl Look {
    /// The time between two snapshots.
    fn interval(&self) -> Duration {
        (self.length / LEAST_INTERVALS).clamp(Duration::from_millis(100), Duration::from_secs(1))
    }

    /// Measures a window into a recording of its own at `path` and into `side`. `baseline`, the
    /// most stalls per second without the change, is given for windows that may end early.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be traced, a recording cannot be written, or `stop` was set.
    pub fn measure(
        &self,
        path: &Path,
        side: &mut Side,
        baseline: Option<f64>,
        stop: &AtomicBool,
    ) -> Result<Measured> {
        let mut writer = Writer::create(path)?;
        let config = Config { threshold_ns: self.threshold_ns, ..Config::new() };
        let startup_cpu = usage::of_this_process().cpu;
        let mut tracer = Tracer::start(&config)?;
        let loaded_cpu = usage::of_this_process().cpu;
        let mut run = self.run(&tracer)?;
        writer.begin(&run)?;
        side.begin(&run)?;
        let mut tcp = tcp_pressure::Watch::new(Path::new("/"));
        let before = guards::read(self.netns, &self.ifaces)?;
        let mut sums = Sums::default();
        let mut aborted = None;
        let began = Instant::now();
        let mut interval_began = (began, SystemTime::now());
        let mut next = began + self.interval();
        while began.elapsed() < self.length && aborted.is_none() {
            if stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            thread::sleep(TICK);
            tracer.drain_records();
            // The last interval takes what is left, so that none is much shorter than the others.
            let left = self.length.saturating_sub(began.elapsed());
            if Instant::now() < next || left < self.interval() / 2 {
                continue;
            }
            next += self.interval();
            let interval = take(&mut tracer, &mut interval_began)?;
            writer.interval(&interval)?;
            side.interval(&interval)?;
            sums.add(&interval);
            tcp.look_in_time();
            if let Some(baseline) = baseline {
                aborted = self.reason(&sums, began.elapsed(), baseline)?;
            }
        }
        let elapsed = began.elapsed();
        let after = guards::read(self.netns, &self.ifaces)?;
        let ledger = tracer.finish();
        let last = take(&mut tracer, &mut interval_began)?;
        writer.interval(&last)?;
        side.interval(&last)?;
        sums.add(&last);
        sums.seconds = elapsed.as_secs_f64();
        sums.ledger = Some(ledger);
        let cpu = usage::of_this_process();
        sums.cost = SelfCost {
            kernel: KernelCost::default(),
            programs: tracer.programs(),
            row_bytes: tracer.row_bytes(),
            user_cpu_s: (cpu.cpu - loaded_cpu).as_secs_f64(),
            startup_cpu_s: (loaded_cpu - startup_cpu).as_secs_f64(),
            resident_bytes: cpu.resident_bytes,
        };
        run.duration_s = sums.seconds;
        let pressure = tcp.finish();
        let rates = guards::rates(&before, &after, sums.seconds);
        writer.finish(&sums.summary(run, pressure))?;
        let net_rx = sums.net_rx();
        let summary = WindowSummary {
            changed: baseline.is_some(),
            recording: path.display().to_string(),
            duration_s: sums.seconds,
            calls: net_rx.count(),
            stalls: net_rx.over_threshold,
            max_ns: net_rx.max_ns,
            rates,
        };
        side.rates.push(rates);
        side.sums.join(sums);
        Ok(Measured { summary, aborted })
    }

    fn reason(&self, sums: &Sums, elapsed: Duration, baseline: f64) -> Result<Option<String>> {
        let series: Vec<_> = sums.series.iter().map(|(s, d)| (s.clone(), d.clone())).collect();
        if let Some(reason) = abort::reason(self.limit, &series, elapsed, baseline) {
            return Ok(Some(reason));
        }
        let lost = guards::lost_link(self.netns, &self.ifaces)?;
        Ok(lost.map(|iface| format!("{iface} has no link any more")))
    }

    fn run(&self, tracer: &Tracer) -> Result<Run> {
        let root = Path::new("/");
        Ok(Run {
            host: kernel::hostname(root)?,
            kernel: kernel::release(root)?,
            started_at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            duration_s: 0.0,
            ifaces: self.ifaces.clone(),
            threshold_ns: self.threshold_ns,
            transport: Transport::Maps,
            probes: tracer.uses().to_vec(),
            sampling: Sampling {
                hz: DEFAULT_SAMPLE_HZ,
                note: tracer.sampling_caveat().unwrap_or_else(|| sampler::BLIND_SPOT.to_owned()),
            },
            cpus: tracer.cpus(),
            version: env!("CARGO_PKG_VERSION").into(),
        })
    }
}

impl Side {
    /// Opens the recording of a side.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn create(path: PathBuf) -> Result<Self> {
        let writer = Writer::create(&path)?;
        Ok(Self { path, writer, run: None, sums: Sums::default(), rates: Vec::new() })
    }

    fn begin(&mut self, run: &Run) -> Result<()> {
        if self.run.is_none() {
            self.writer.begin(run)?;
            self.run = Some(run.clone());
        }
        Ok(())
    }

    fn interval(&mut self, interval: &Interval) -> Result<()> {
        self.sums.totals.add(interval);
        self.writer.interval(interval)
    }

    /// Runs of `net_rx_action` in its windows by their length.
    pub fn lengths(&self) -> Lengths {
        Lengths::new(&self.sums.series)
    }

    /// What the stalls of its windows add up to.
    pub fn totals(&self) -> &StallTotals {
        &self.sums.totals
    }

    /// Ends the recording and returns its path.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn finish(self) -> Result<PathBuf> {
        if let Some(mut run) = self.run {
            run.duration_s = self.sums.seconds;
            self.writer.finish(&self.sums.summary(run, Vec::new()))?;
        }
        Ok(self.path)
    }
}

impl Sums {
    fn add(&mut self, interval: &Interval) {
        for (series, distribution) in &interval.series {
            self.series.entry(series.clone()).or_default().add(distribution);
        }
        self.totals.add(interval);
    }

    /// Adds another window, but its stalls: [`Side::interval`] did.
    fn join(&mut self, other: Self) {
        self.seconds += other.seconds;
        for (series, distribution) in other.series {
            self.series.entry(series).or_default().add(&distribution);
        }
        match (&mut self.ledger, other.ledger) {
            (Some(sum), Some(ledger)) => add_ledger(sum, ledger),
            (None, ledger) => self.ledger = ledger,
            (Some(_), None) => {}
        }
        self.cost = SelfCost {
            user_cpu_s: self.cost.user_cpu_s + other.cost.user_cpu_s,
            startup_cpu_s: self.cost.startup_cpu_s + other.cost.startup_cpu_s,
            ..other.cost
        };
    }

    fn net_rx(&self) -> Distribution {
        let mut sum = Distribution::default();
        let series = self.series.iter().filter(|(series, _)| series.stage == Stage::NetRx);
        series.for_each(|(_, distribution)| sum.add(distribution));
        sum
    }

    fn summary(&self, run: Run, tcp: Vec<TcpPressure>) -> Summary {
        let series: Vec<SeriesSummary> = self
            .series
            .iter()
            .map(|(series, distribution)| SeriesSummary::new(series, distribution))
            .collect();
        Summary {
            stalls: Stalls::new(run.threshold_ns, &series, &self.totals, tcp),
            run,
            series,
            ledger: self.ledger.clone().unwrap_or_default(),
            self_cost: self.cost.clone(),
        }
    }
}

fn take(tracer: &mut Tracer, began: &mut (Instant, SystemTime)) -> Result<Interval> {
    let now = (Instant::now(), SystemTime::now());
    let (since, began_at) = std::mem::replace(began, now);
    let series = tracer.interval()?;
    let Learned { stalls, collapses, stacks } = tracer.learned();
    Ok(Interval { began_at, duration: now.0 - since, series, stalls, collapses, stacks })
}
