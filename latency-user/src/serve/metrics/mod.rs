//! Metrics for Prometheus and what reads its formats.
//!
//! [`Metrics`] is brought up to date once an interval; a scrape only reads it. Counters count from
//! the start of the daemon.

mod exposition;
pub mod levels;
pub mod native;
pub mod otlp;
mod queue_cpus;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use latency_common::stage::{STAGES, Stage};

pub use self::exposition::{Form, render};
use self::{
    levels::{Level, Leveled},
    native::NativeMap,
    queue_cpus::QueueCpus,
};
use crate::{
    analysis::{culprits::culprits, totals::RunEnd},
    measure::sink::{Measured, SoFar},
    model::{run::Run, stall::batch::Stack, summary::Summary},
};

/// Functions that have a name of their own; the others are counted as [`OTHERS`].
const FUNCTIONS: usize = 32;
const OTHERS: &str = "other";

/// The period of which the longest event is told.
const MINUTE: Duration = Duration::from_secs(60);

/// What metrics are made of.
#[derive(Clone, Debug)]
pub struct Metrics {
    run: Run,
    started: SystemTime,
    durations: Leveled,
    map: Arc<NativeMap>,
    longest: [Longest; STAGES],
    queue_cpus: QueueCpus,
    minute_started: Instant,
    culprit_samples: BTreeMap<String, u64>,
    /// What earlier tracers of this daemon reported.
    earlier: Option<RunEnd>,
    so_far: SoFar,
    intervals: u64,
    /// Recordings by what triggered them.
    pub recordings: BTreeMap<String, u64>,
    /// Recordings that could not be written.
    pub failed_recordings: u64,
    /// Clients that are attached.
    pub clients: u64,
    /// Clients that were cut off because they did not read.
    pub slow_clients: u64,
    /// Intervals that the ring of recordings lacks.
    pub missing_in_ring: u64,
    /// Pushes to a collector that failed.
    pub failed_pushes: u64,
}

/// The longest event of a stage.
#[derive(Clone, Copy, Debug, Default)]
struct Longest {
    /// In the current minute: its duration in ns, and its CPU.
    current: (u64, Option<u32>),
    /// In the last full one; `None`: none is over yet.
    last: Option<(u64, Option<u32>)>,
}

impl Metrics {
    /// Metrics of a run that has just started, with at most `most_series` histograms.
    pub fn new(run: Run, level: Level, most_series: usize, schema: i32) -> Self {
        Self {
            run,
            started: SystemTime::now(),
            durations: Leveled::new(level, most_series),
            map: Arc::new(NativeMap::new(schema)),
            longest: Default::default(),
            queue_cpus: QueueCpus::default(),
            minute_started: Instant::now(),
            culprit_samples: BTreeMap::new(),
            earlier: None,
            so_far: SoFar::default(),
            intervals: 0,
            recordings: BTreeMap::new(),
            failed_recordings: 0,
            clients: 0,
            slow_clients: 0,
            missing_in_ring: 0,
            failed_pushes: 0,
        }
    }

    /// The header of the run, as of now: a stage may have been disabled.
    pub fn set_run(&mut self, run: &Run) {
        self.run = run.clone();
    }

    /// A tracer has ended, whose books are closed; counters go on.
    pub fn restart(&mut self, end: &Summary) {
        self.so_far.ledger = end.ledger.clone();
        self.so_far.self_cost = end.self_cost.clone();
        self.earlier = Some(self.end());
        self.so_far = SoFar::default();
    }

    /// What all tracers of this daemon reported.
    fn end(&self) -> RunEnd {
        let SoFar { ledger, self_cost, tcp } = self.so_far.clone();
        let Some(mut end) = self.earlier.clone() else { return RunEnd { ledger, self_cost, tcp } };
        let mut cost = end.self_cost.clone();
        cost.continue_with(&self_cost);
        end.continue_with(RunEnd { ledger, self_cost: cost, tcp });
        end
    }

    /// Adds an interval. Returns the new level if there were too many histograms.
    pub fn add(&mut self, measured: &Measured<'_>) -> Option<Level> {
        self.intervals += 1;
        if let Some(so_far) = measured.so_far {
            self.so_far = so_far.clone();
        }
        if self.minute_started.elapsed() >= MINUTE {
            self.end_minute();
        }
        self.add_longest(measured);
        self.queue_cpus.add(measured.all);
        let stacks: Vec<&Stack> =
            measured.all.batch.stacks.iter().map(|located| &located.stack).collect();
        for culprit in culprits(stacks, &Default::default()) {
            let is_named = self.culprit_samples.len() < FUNCTIONS
                || self.culprit_samples.contains_key(&culprit.function);
            let name = if is_named { culprit.function } else { OTHERS.to_owned() };
            *self.culprit_samples.entry(name).or_default() += culprit.samples;
        }
        self.durations.add(measured.all)
    }

    fn end_minute(&mut self) {
        for longest in &mut self.longest {
            longest.last = Some(std::mem::take(&mut longest.current));
        }
        self.queue_cpus.end_minute();
        self.minute_started = Instant::now();
    }

    fn add_longest(&mut self, measured: &Measured<'_>) {
        for series in &measured.all.series {
            let longest = &mut self.longest[series.id.stage as usize].current;
            if series.distribution.max_ns > longest.0 {
                *longest = (series.distribution.max_ns, series.labels().cpu);
            }
        }
        // Where a queue was polled is known of stalls.
        for stall in &measured.all.batch.stalls {
            let longest = &mut self.longest[stall.stage as usize].current;
            if stall.duration_ns >= longest.0 {
                *longest = (stall.duration_ns, Some(stall.cpu));
            }
        }
    }

    /// The stages that are timed, with what is timed in each.
    fn stages(&self) -> impl Iterator<Item = Stage> {
        self.run.probes.iter().filter(|probe| probe.method.is_some()).map(|probe| probe.stage)
    }
}
