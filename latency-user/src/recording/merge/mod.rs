//! Merges any number of recordings, in memory that does not grow with their number or length.
//!
//! Counts are added bucket by bucket, so the result equals one histogram of all values. All other
//! data is a set, a sum of integers, or an extreme, so merging is associative and commutative, down
//! to the bytes of the file, as long as the cells of its grid have the same width. Memory grows with
//! the series and with the distinct stacks, of which a kernel has a limited number.
//!
//! Recordings are read twice: for the sums, and for the course over time ([`grid`]), whose width
//! depends on the sums. Logs of other programs have no times that could be aligned: with one of
//! them, the sum has one interval.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Result, ensure};

mod grid;

use self::grid::Grid;
use super::{format::Merge, loaded::RecordingTotals, writer::Writer};
use crate::{
    analysis::totals::Totals,
    model::{
        failure::Failure,
        interval::{Interval, MergedTime},
        note::Note,
        run::{DEFAULT_THRESHOLD_NS, Run, Sampling, SelectedProbe, Transport},
        series::{Series, SeriesKey},
        unit::Unit,
    },
};

/// The sum of recordings.
pub struct Merger {
    merge: Merge,
    /// The recording that the threshold is from.
    threshold_of: PathBuf,
    totals: Totals<SeriesKey>,
    /// Series of other programs' logs, whose stalls are counted once the threshold is known.
    uncounted: BTreeSet<SeriesKey>,
    /// The recordings, to be read again.
    files: Vec<PathBuf>,
    /// Hashes of the hosts and starts of recordings.
    runs: BTreeSet<u64>,
    /// Width of the grid's cells, at least.
    interval: Duration,
}

impl Merger {
    /// A sum with intervals of at least this length.
    pub fn new(interval: Duration) -> Self {
        Self {
            merge: Merge::default(),
            threshold_of: PathBuf::new(),
            totals: Totals::with_all_stacks(),
            uncounted: BTreeSet::new(),
            files: Vec::new(),
            runs: BTreeSet::new(),
            interval,
        }
    }

    /// Reads a recording, or another program's log with values in `unit`, and adds it. Returns notes
    /// about it.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or its threshold differs from that of the recordings before it.
    pub fn add(&mut self, path: &Path, unit: Option<Unit>) -> Result<Vec<Note>> {
        let mut recording = RecordingTotals::read_in(path, unit)?;
        let merge = match recording.merge.take() {
            Some(merge) => merge,
            None => header(&recording),
        };
        if let Some(run) = &recording.run {
            let mut hasher = DefaultHasher::new();
            (&run.host, &run.started_at, merge.recordings).hash(&mut hasher);
            if !self.runs.insert(hasher.finish()) {
                let (host, started_at) = (run.host.clone(), run.started_at.clone());
                let file = path.display().to_string();
                recording.notes.push(Note::RecordedTwice { file, host, started_at });
            }
        }
        self.files.push(path.to_owned());
        let merge_threshold = merge.threshold_ns;
        self.check_threshold(merge_threshold, path)?;
        self.merge.add(merge);
        let mut totals = recording.totals;
        if let Some(run) = &recording.run {
            let series = std::mem::take(&mut totals.series).into_iter();
            totals.series = series.map(|(key, sum)| (key.on_host(&run.host), sum)).collect();
            totals.stalls.set_host(&run.host);
            totals.set_host_of_steal(&run.host);
        } else {
            let series = std::mem::take(&mut totals.series).into_iter();
            totals.series = series.map(|(key, sum)| (plain(key), sum)).collect();
        }
        if merge_threshold.is_none() {
            self.uncounted.extend(totals.series.keys().cloned());
        }
        totals.stalls.clear_sockets();
        self.totals.join(totals);
        Ok(recording.notes)
    }

    fn check_threshold(&mut self, threshold_ns: Option<u64>, path: &Path) -> Result<(), Failure> {
        match (self.merge.threshold_ns, threshold_ns) {
            (Some(known), Some(new)) if known != new => Err(Failure::new(format!(
                "{} has a threshold of {new} ns and {} of {known} ns: cannot be merged",
                path.display(),
                self.threshold_of.display()
            ))
            .hint("merge recordings with the same threshold; compare works with different ones")),
            (None, Some(_)) => {
                path.clone_into(&mut self.threshold_of);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Number of recordings and of series so far.
    pub fn size(&self) -> (u64, usize) {
        (self.merge.recordings, self.totals.series.len())
    }

    /// Writes the sum. Returns notes about it. `progress` is called before each recording that is read
    /// again, with its number.
    ///
    /// # Errors
    ///
    /// When the file cannot be written, or a recording has changed since it was added; the error
    /// names it.
    pub fn write(
        mut self,
        mut writer: Writer,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Vec<Note>> {
        let run = self.merge.run();
        for (_, total) in
            self.totals.series.iter_mut().filter(|(key, _)| self.uncounted.contains(key))
        {
            let distribution = &mut total.distribution;
            distribution.over_threshold = distribution.count_from(run.threshold_ns);
        }
        let length_ms = self.merge.last_ms.saturating_sub(self.merge.first_ms);
        let width = grid::width(self.interval, length_ms, self.totals.series.len());
        let has_times = self.merge.other_logs == 0 && self.merge.first_ms <= self.merge.last_ms;
        let mut cells = match has_times {
            true => self.cells(width, progress)?,
            false => Vec::new(),
        };
        let widened = (has_times && width > self.interval)
            .then_some(Note::GridWidened { interval_s: width.as_secs_f64() });
        writer.start(&run)?;
        writer.merge(&self.merge)?;
        let summary = self.totals.summary(run, &self.totals.known_series());
        let steal = self.totals.steal();
        let Totals { series, stalls, end, .. } = self.totals;
        let mut last = cells.pop().unwrap_or_else(|| {
            let series = series.into_iter().map(|(id, total)| Series {
                id,
                attrs: total.attrs,
                distribution: total.distribution,
            });
            let length = Duration::from_millis(length_ms);
            let interval = Interval::new(Duration::ZERO, length, series.collect());
            // Recordings without any interval have no cell when they are merged again, either.
            Interval { merged: has_times.then(MergedTime::default), ..interval }
        });
        // That steal is known of a cell is known; what it was stands in the last one, with the
        // stalls of all cells, which are not sorted by time.
        cells.iter_mut().for_each(|cell| cell.steal = steal.as_ref().map(|_| Vec::new()));
        (last.batch, last.steal) = (stalls.into_batch(), steal);
        for cell in cells.iter().chain([&last]) {
            writer.interval(cell)?;
        }
        // If all runs were killed, none has an end, and neither has their sum.
        if end.is_some() {
            writer.finish(&summary)?;
        }
        Ok(widened.into_iter().collect())
    }

    /// Reads all recordings again, into cells of a grid.
    fn cells(
        &self,
        width: Duration,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Vec<Interval<SeriesKey>>> {
        let mut grid = Grid::new(width, self.merge.first_ms);
        let mut intervals = 0;
        for (done, file) in (0..).zip(&self.files) {
            progress(done)?;
            grid.next_recording();
            RecordingTotals::read_with(file, None, |interval, run| {
                let Some(run) = run else { return };
                let start_ms =
                    run.started().and_then(|start| start.duration_since(UNIX_EPOCH).ok());
                let start_ms =
                    start_ms.map_or(self.merge.first_ms, |start| start.as_millis() as u64);
                let key = |key: &SeriesKey| key.clone().on_host(&run.host);
                grid.add(interval, start_ms, &key);
                intervals += 1;
            })?;
        }
        let cells: Vec<Interval<SeriesKey>> = grid.into_intervals().collect();
        let mut counts: BTreeMap<&SeriesKey, u64> = BTreeMap::new();
        for series in cells.iter().flat_map(|cell| &cell.series) {
            *counts.entry(&series.id).or_default() += series.distribution.count();
        }
        let is_sum = self
            .totals
            .series
            .iter()
            .all(|(key, total)| counts.remove(key).unwrap_or(0) == total.distribution.count());
        ensure!(
            is_sum && counts.is_empty() && intervals == self.totals.intervals,
            "a recording was written to while it was merged: merge again when it is complete"
        );
        Ok(cells)
    }
}

/// A series of another program's log. A tag that looks like ours is marked, or it would be read as
/// ours from the merged recording.
fn plain(key: SeriesKey) -> SeriesKey {
    let tag = key.tag();
    match SeriesKey::of_tag(&tag) {
        SeriesKey::Known(_) => SeriesKey::Foreign(format!("plain;{tag}")),
        foreign => foreign,
    }
}

/// The [`Merge`] of a single recording that was not merged.
fn header(recording: &RecordingTotals) -> Merge {
    let Some(run) = &recording.run else {
        return Merge { recordings: 1, other_logs: 1, first_ms: u64::MAX, ..Merge::default() };
    };
    let traced_s = match &recording.end {
        Some(end) => end.run.duration_s,
        None => recording.totals.length.as_secs_f64(),
    };
    let start_ms = recording.started().and_then(|start| u64::try_from(start.as_millis()).ok());
    Merge {
        recordings: 1,
        without_end: u64::from(recording.end.is_none()),
        other_logs: 0,
        hosts: [run.host.clone()].into(),
        kernels: [run.kernel.clone()].into(),
        ifaces: run.ifaces.iter().cloned().collect(),
        threshold_ns: Some(run.threshold_ns),
        transports: [run.transport].into(),
        probes: run.probes.iter().cloned().collect(),
        cpus: run.cpus,
        first_ms: start_ms.unwrap_or(u64::MAX),
        last_ms: start_ms.map_or(0, |ms| ms.saturating_add((traced_s * 1e3) as u64)),
        traced_us: micros(traced_s),
    }
}

impl Merge {
    fn add(&mut self, other: Self) {
        let first = self.recordings == 0;
        self.recordings += other.recordings;
        self.without_end += other.without_end;
        self.other_logs += other.other_logs;
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
        let only_or_count = |set: &BTreeSet<String>, many: &str| match (set.len(), set.first()) {
            (0, _) => "unknown".to_owned(),
            (1, Some(only)) if self.other_logs == 0 => only.clone(),
            (1, Some(only)) => format!("{only} and other logs"),
            (n, _) if self.other_logs == 0 => format!("{n} {many}"),
            (n, _) => format!("{n} {many} and other logs"),
        };
        let first_ms = if self.first_ms > self.last_ms { 0 } else { self.first_ms };
        let started_at = UNIX_EPOCH + Duration::from_millis(first_ms.min(253_402_300_799_000));
        Run {
            host: only_or_count(&self.hosts, "hosts"),
            kernel: only_or_count(&self.kernels, "kernels"),
            started_at: humantime::format_rfc3339_millis(started_at).to_string(),
            duration_s: self.traced_us as f64 / 1e6,
            ifaces: self.ifaces.iter().cloned().collect(),
            // If there are only logs of other programs, it is unknown.
            threshold_ns: self.threshold_ns.unwrap_or(DEFAULT_THRESHOLD_NS),
            transport: match (self.transports.len(), self.transports.first()) {
                (1, Some(only)) => *only,
                // The ring may drop events, rows cannot: the sum has the weaker guarantee.
                (2.., _) => Transport::Ring,
                _ => Transport::Maps,
            },
            probes: self.probes(),
            sampling: Sampling { notes: vec![Note::SampledPerRecording], ..Sampling::default() },
            cpus: self.cpus,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// One entry for each stage, whose method may differ between hosts.
    fn probes(&self) -> Vec<SelectedProbe> {
        let mut stages: BTreeMap<_, Vec<&SelectedProbe>> = BTreeMap::new();
        for probe in &self.probes {
            stages.entry(probe.stage).or_default().push(probe);
        }
        let merged = stages.into_values().map(|probes| {
            let (first, rest) = probes.split_first().expect("a stage is here because of a probe");
            if rest.is_empty() {
                return (*first).clone();
            }
            let used = probes.iter().find(|probe| probe.method.is_some()).unwrap_or(first);
            let mut methods: Vec<&str> =
                probes.iter().map(|p| p.method.map_or("none", |method| method.name())).collect();
            methods.dedup();
            if methods.len() == 1 {
                return (*used).clone();
            }
            let methods = methods.into_iter().map(str::to_owned).collect();
            SelectedProbe { notes: vec![Note::ProbedDifferently { methods }], ..(*used).clone() }
        });
        merged.collect()
    }
}

/// Rounds to microseconds, which convert to seconds and back exactly for 285 years.
fn micros(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64
}

#[cfg(test)]
mod tests;
