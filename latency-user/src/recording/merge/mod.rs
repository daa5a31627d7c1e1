//! Adds any number of recordings up, in memory that does not grow with their number or length.
//!
//! Counts are added bucket by bucket, so the result is what one histogram of all values would be.
//! What is kept beside the counts is a set, a sum of whole numbers, or an extreme: merging is
//! associative and commutative, down to the bytes of the file. Memory grows with the series and
//! with the different stacks, of which a kernel has a limited number. The course of time is lost:
//! a merged recording has one interval.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::Result;

use super::{
    format::Merge,
    loaded::{Whole, sort_worst},
    reader::RecordedInterval,
    writer::Writer,
};
use crate::{
    analysis::stall_totals::StallTotals,
    model::{
        cost::{KernelCost, SelfCost, Shed},
        distribution::Distribution,
        failure::Failure,
        interval::Interval,
        ledger::{Ledger, ProgramBooks, RecordBooks, StageBooks},
        run::{DEFAULT_THRESHOLD_NS, ProbeUse, Run, Sampling, Transport},
        source::Source,
        stall::Stack,
        summary::{SeriesSummary, Stalls, Summary},
    },
};

/// The sum of recordings.
#[derive(Default)]
pub struct Merger {
    merge: Merge,
    /// The recording that the threshold is from.
    threshold_of: PathBuf,
    whole: Whole,
    ledger: Option<Ledger>,
    cost: Cost,
}

/// [`SelfCost`] in whole numbers, whose sum does not depend on their order.
#[derive(Default)]
struct Cost {
    programs: usize,
    row_bytes: u64,
    user_cpu_us: u64,
    startup_cpu_us: u64,
    resident_bytes: u64,
    shed: Vec<Shed>,
}

impl Merger {
    /// Reads a recording and adds it. Gives what the user must know of it.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or counted stalls from another threshold than those before it.
    pub fn add(&mut self, path: &Path) -> Result<Vec<String>> {
        let mut whole = Whole::read(path, |_| {})?;
        let merge = match whole.merge.take() {
            Some(merge) => merge,
            None => header(&whole),
        };
        self.check_threshold(merge.threshold_ns, path)?;
        self.merge.add(merge);
        let host = whole.run.as_ref().map(|run| run.host.clone());
        for (source, distribution) in whole.totals {
            let source = match &host {
                Some(host) => source.on_host(host),
                None => source,
            };
            self.whole.totals.entry(source).or_default().add(&distribution);
        }
        for stall in &mut whole.stalls {
            stall.place.host = stall.place.host.take().or_else(|| host.clone());
        }
        self.whole.stalls.extend(whole.stalls);
        sort_worst(&mut self.whole.stalls, |stall| stall.duration_ns);
        self.whole.collapses.extend(whole.collapses);
        sort_worst(&mut self.whole.collapses, |one| one.duration_ns);
        for (frames, count) in whole.stacks {
            let sum = self.whole.stacks.entry(frames).or_default();
            *sum = sum.saturating_add(count);
        }
        if let Some(end) = whole.end {
            self.cost.add(&end.self_cost);
            match &mut self.ledger {
                Some(ledger) => add_ledger(ledger, end.ledger),
                None => self.ledger = Some(end.ledger),
            }
        }
        Ok(whole.remarks)
    }

    fn check_threshold(&mut self, threshold_ns: Option<u64>, path: &Path) -> Result<(), Failure> {
        match (self.merge.threshold_ns, threshold_ns) {
            (Some(known), Some(new)) if known != new => Err(Failure::new(format!(
                "{} counts stalls from {new} ns on and {} from {known} ns on: cannot be merged",
                path.display(),
                self.threshold_of.display()
            ))
            .hint("merge recordings of one threshold; their histograms compare all the same")),
            (None, Some(_)) => {
                path.clone_into(&mut self.threshold_of);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Number of recordings and of series so far.
    pub fn size(&self) -> (u64, usize) {
        (self.merge.recordings, self.whole.totals.len())
    }

    /// Writes the sum.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; the error names it.
    pub fn write(mut self, mut writer: Writer) -> Result<()> {
        let run = self.merge.run();
        writer.begin(&run)?;
        let series: Vec<(Source, Distribution)> =
            std::mem::take(&mut self.whole.totals).into_iter().collect();
        let interval = RecordedInterval {
            start: Duration::ZERO,
            duration: Duration::from_millis(self.merge.last_ms.saturating_sub(self.merge.first_ms)),
            series,
            stalls: self.whole.stalls,
            collapses: self.whole.collapses,
            stacks: stacks(self.whole.stacks),
        };
        writer.merged(&self.merge, &interval)?;
        let timed = interval.series.iter().filter_map(|(source, distribution)| match source {
            Source::Series(series) => Some((series, distribution)),
            Source::Plain(_) => None,
        });
        let series: Vec<SeriesSummary> =
            timed.map(|(series, distribution)| SeriesSummary::new(series, distribution)).collect();
        let mut totals = StallTotals::default();
        // Sockets are left out: the slowest calls, which is all that is kept, are no sum.
        totals.add(&Interval {
            began_at: UNIX_EPOCH,
            duration: interval.duration,
            series: Vec::new(),
            stalls: interval.stalls,
            collapses: Vec::new(),
            stacks: interval.stacks,
        });
        // Runs that were all killed have no end, and so has their sum.
        let Some(ledger) = self.ledger else { return Ok(()) };
        writer.finish(&Summary {
            stalls: Stalls::new(run.threshold_ns, &series, &totals, Vec::new()),
            run,
            series,
            ledger,
            self_cost: self.cost.sum(),
        })
    }
}

fn stacks(stacks: BTreeMap<Vec<String>, u64>) -> Vec<Stack> {
    stacks.into_iter().map(|(frames, count)| Stack { frames, count }).collect()
}

/// What a recording that was not merged adds to [`Merge`].
fn header(whole: &Whole) -> Merge {
    let Some(run) = &whole.run else {
        return Merge { recordings: 1, ..Merge::default() };
    };
    let traced_s = whole.end.as_ref().map_or(whole.length.as_secs_f64(), |end| end.run.duration_s);
    let began_ms = whole.began_ms();
    Merge {
        recordings: 1,
        without_end: u64::from(whole.end.is_none()),
        hosts: [run.host.clone()].into(),
        kernels: [run.kernel.clone()].into(),
        ifaces: run.ifaces.iter().cloned().collect(),
        threshold_ns: Some(run.threshold_ns),
        transports: [run.transport].into(),
        probes: run.probes.iter().cloned().collect(),
        cpus: run.cpus,
        first_ms: began_ms.unwrap_or(u64::MAX),
        last_ms: began_ms.map_or(0, |ms| ms.saturating_add((traced_s * 1e3) as u64)),
        traced_us: micros(traced_s),
    }
}

impl Merge {
    fn add(&mut self, other: Self) {
        let first = self.recordings == 0;
        self.recordings += other.recordings;
        self.without_end += other.without_end;
        self.hosts.extend(other.hosts);
        self.kernels.extend(other.kernels);
        self.ifaces.extend(other.ifaces);
        self.threshold_ns = self.threshold_ns.or(other.threshold_ns);
        self.transports.extend(other.transports);
        self.probes.extend(other.probes);
        self.cpus = self.cpus.max(other.cpus);
        self.first_ms = if first { other.first_ms } else { self.first_ms.min(other.first_ms) };
        self.last_ms = self.last_ms.max(other.last_ms);
        self.traced_us = self.traced_us.saturating_add(other.traced_us);
    }

    /// The header of the sum.
    fn run(&self) -> Run {
        let one = |set: &BTreeSet<String>, many: &str| match (set.len(), set.first()) {
            (1, Some(only)) => only.clone(),
            (n, _) => format!("{n} {many}"),
        };
        let first_ms = if self.first_ms > self.last_ms { 0 } else { self.first_ms };
        let began_at = UNIX_EPOCH + Duration::from_millis(first_ms.min(253_402_300_799_000));
        Run {
            host: one(&self.hosts, "hosts"),
            kernel: one(&self.kernels, "kernels"),
            started_at: humantime::format_rfc3339_millis(began_at).to_string(),
            duration_s: self.traced_us as f64 / 1e6,
            ifaces: self.ifaces.iter().cloned().collect(),
            // Logs of other programs alone do not tell.
            threshold_ns: self.threshold_ns.unwrap_or(DEFAULT_THRESHOLD_NS),
            transport: match (self.transports.len(), self.transports.first()) {
                (1, Some(only)) => *only,
                // The ring may have lost what rows cannot: the weaker promise holds for the sum.
                (2.., _) => Transport::Ring,
                _ => Transport::Maps,
            },
            probes: self.probes(),
            sampling: Sampling { hz: 0, note: "told by each recording alone".into() },
            cpus: self.cpus,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// One entry for each stage; the ways that stages were probed in differ between hosts.
    fn probes(&self) -> Vec<ProbeUse> {
        let mut stages: BTreeMap<_, Vec<&ProbeUse>> = BTreeMap::new();
        for probe in &self.probes {
            stages.entry(probe.stage).or_default().push(probe);
        }
        let merged = stages.into_values().map(|probes| {
            let (first, rest) = probes.split_first().expect("a stage is here because of a probe");
            if rest.is_empty() {
                return (*first).clone();
            }
            let used = probes.iter().find(|probe| probe.method.is_some()).unwrap_or(first);
            let mut ways: Vec<&str> =
                probes.iter().map(|p| p.method.map_or("none", |method| method.name())).collect();
            ways.dedup();
            if ways.len() == 1 {
                return (*used).clone();
            }
            ProbeUse {
                note: Some(format!("probed differently by recording: {}", ways.join(", "))),
                ..(*used).clone()
            }
        });
        merged.collect()
    }
}

impl Cost {
    fn add(&mut self, cost: &SelfCost) {
        self.programs = self.programs.max(cost.programs);
        self.row_bytes = self.row_bytes.max(cost.row_bytes);
        self.user_cpu_us = self.user_cpu_us.saturating_add(micros(cost.user_cpu_s));
        self.startup_cpu_us = self.startup_cpu_us.saturating_add(micros(cost.startup_cpu_s));
        self.resident_bytes = self.resident_bytes.max(cost.resident_bytes);
        self.shed.extend(cost.kernel.shed.iter().cloned());
        let order = |one: &Shed, other: &Shed| {
            one.stage.cmp(&other.stage).then(one.after_s.total_cmp(&other.after_s))
        };
        self.shed.sort_by(order);
    }

    fn sum(&self) -> SelfCost {
        SelfCost {
            // Shares of different runs do not add up.
            kernel: KernelCost { shed: self.shed.clone(), ..KernelCost::default() },
            programs: self.programs,
            row_bytes: self.row_bytes,
            user_cpu_s: self.user_cpu_us as f64 / 1e6,
            startup_cpu_s: self.startup_cpu_us as f64 / 1e6,
            resident_bytes: self.resident_bytes,
        }
    }
}

/// Whole microseconds: as a number of seconds they read back exactly for 285 years.
fn micros(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64
}

/// Adds the books of another run.
pub fn add_ledger(sum: &mut Ledger, other: Ledger) {
    for books in other.stages {
        match sum.stages.iter_mut().find(|one| one.stage == books.stage) {
            Some(one) => add_books(one, &books),
            None => sum.stages.push(books),
        }
    }
    sum.stages.sort_by(|a, b| a.stage.cmp(&b.stage));
    sum.slots.room += other.slots.room;
    sum.slots.taken += other.slots.taken;
    sum.malformed_events += other.malformed_events;
    sum.rows_that_differ = plus(sum.rows_that_differ, other.rows_that_differ);
    add_records(&mut sum.collapses, &other.collapses);
    add_records(&mut sum.samples, &other.samples);
    sum.malformed_records += other.malformed_records;
    for program in other.programs {
        match sum.programs.iter_mut().find(|one| one.program == program.program) {
            Some(one) => {
                one.recursion_misses = plus(one.recursion_misses, program.recursion_misses);
                one.missed = plus(one.missed, program.missed);
            }
            None => sum.programs.push(program),
        }
    }
    sum.programs.sort_by(|a: &ProgramBooks, b| a.program.cmp(&b.program));
    sum.balanced &= other.balanced;
}

fn plus(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

fn add_records(sum: &mut RecordBooks, other: &RecordBooks) {
    sum.submitted += other.submitted;
    sum.received += other.received;
    sum.dropped += other.dropped;
    sum.limited += other.limited;
}

fn add_books(sum: &mut StageBooks, other: &StageBooks) {
    sum.begins += other.begins;
    sum.recorded += other.recorded;
    sum.over_threshold += other.over_threshold;
    sum.open += other.open;
    sum.begins_without_end += other.begins_without_end;
    sum.backwards += other.backwards;
    sum.ends_without_begin += other.ends_without_begin;
    sum.table_full += other.table_full;
    sum.clamped += other.clamped;
    sum.ring_submitted += other.ring_submitted;
    sum.ring_received += other.ring_received;
    sum.ring_dropped += other.ring_dropped;
    add_records(&mut sum.records, &other.records);
    sum.balanced &= other.balanced;
}

#[cfg(test)]
mod tests;
