//! A recording read into memory: its totals, which most reports need, and its course over time.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    format::Merge,
    parts::Parts,
    reader::{ReadError, Reader, RecordingEntry},
};
use crate::{
    analysis::{
        culprits::share_of,
        stall_time::{estimate, forget_overdue},
        totals::{RunEnd, Totals},
    },
    model::{
        distribution::Distribution,
        interval::Interval,
        note::Note,
        run::Run,
        series::{Series, SeriesId, SeriesKey},
        settings::HostSettings,
        summary::{Stalls, Summary},
        timeline::Timeline,
        unit::Unit,
    },
};

/// Everything in a recording except its course over time.
pub struct RecordingTotals {
    /// The file.
    pub path: PathBuf,
    /// The header; `None`: another program's log.
    pub run: Option<Run>,
    /// Settings of the machine; `None`: they are not recorded.
    pub settings: Option<HostSettings>,
    /// What was merged into it.
    pub merge: Option<Merge>,
    /// The end; `None`: the run was killed, or it is another program's log.
    pub end: Option<Summary>,
    /// Totals over its intervals.
    pub totals: Totals<SeriesKey>,
    /// Unit of the values in another program's log, if it is known.
    pub unit: Option<Unit>,
    /// Notes about the file.
    pub notes: Vec<Note>,
}

/// A recording with its course over time.
///
/// ```no_run
/// use std::path::Path;
///
/// use latency_user::{compare::compare, recording::loaded::LoadedRecording};
///
/// let before = LoadedRecording::read(Path::new("before.hlog"))?;
/// let after = LoadedRecording::read(Path::new("after.hlog"))?;
/// println!("{:?}", compare(&before, &after).verdict);
/// # Ok::<(), latency_user::recording::reader::ReadError>(())
/// ```
pub struct LoadedRecording {
    /// Its totals.
    pub totals: RecordingTotals,
    /// Its parts of equal length: what a comparison resamples.
    pub parts: Parts,
    /// Its columns of equal length, for display.
    pub timeline: Timeline,
}

impl LoadedRecording {
    /// Reads a recording.
    ///
    /// # Errors
    ///
    /// As [`Reader::next_entry`].
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        Self::read_in(path, None)
    }

    /// Reads a recording, or another program's log with values in `unit`; `None`: as its maxima
    /// say, or else in ns.
    ///
    /// # Errors
    ///
    /// As [`Reader::next_entry`].
    pub fn read_in(path: &Path, unit: Option<Unit>) -> Result<Self, ReadError> {
        let mut parts = Parts::default();
        let mut timeline = Timeline::default();
        let totals = RecordingTotals::read_with(path, unit, |interval, run| {
            parts.add(interval, run);
            timeline.add(interval.duration, &interval.series);
        })?;
        parts.finish();
        Ok(Self { totals, parts, timeline })
    }
}

impl RecordingTotals {
    /// Reads a recording and sums it up.
    ///
    /// # Errors
    ///
    /// As [`Reader::next_entry`].
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        Self::read_in(path, None)
    }

    /// As [`Self::read`], with a unit as in [`LoadedRecording::read_in`].
    ///
    /// # Errors
    ///
    /// As [`Reader::next_entry`].
    pub fn read_in(path: &Path, unit: Option<Unit>) -> Result<Self, ReadError> {
        Self::read_with(path, unit, |_, _| {})
    }

    /// Reads a recording and passes each interval to `watch`.
    pub(super) fn read_with(
        path: &Path,
        unit: Option<Unit>,
        mut watch: impl FnMut(&Interval<SeriesKey>, Option<&Run>),
    ) -> Result<Self, ReadError> {
        let mut reader = Reader::open(path)?.with_unit(unit);
        let mut recording = Self {
            path: path.to_owned(),
            run: None,
            settings: None,
            merge: None,
            end: None,
            totals: Totals::with_all_stacks(),
            unit: None,
            notes: Vec::new(),
        };
        while let Some(entry) = reader.next_entry()? {
            match entry {
                RecordingEntry::Run(run) => recording.run = Some(run),
                RecordingEntry::Settings(settings) => recording.settings = Some(settings),
                RecordingEntry::Merge(merge) => recording.merge = Some(merge),
                RecordingEntry::Summary(end) => recording.end = Some(*end),
                RecordingEntry::Interval(interval) => {
                    watch(&interval, recording.run.as_ref());
                    recording.totals.add(&interval);
                }
            }
        }
        recording.totals.end = recording.end.as_ref().map(|end| RunEnd {
            ledger: end.ledger.clone(),
            self_cost: end.self_cost.clone(),
            tcp: end.stalls.tcp.clone(),
        });
        if reader.has_estimates() && recording.lost_samples() {
            recording.totals.stalls.forget_overdue();
        }
        recording.unit = reader.unit();
        recording.notes.extend_from_slice(reader.notes());
        if recording.run.is_some() && recording.end.is_none() {
            recording.notes.push(Note::RunNotFinished { file: path.display().to_string() });
        }
        Ok(recording)
    }

    /// Whether samples of stacks are known to be missing.
    fn lost_samples(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.ledger.samples.dropped > 0)
    }

    /// The same numbers as the live summary of the run: the series that it showed, in the same
    /// order. `None` for another program's log.
    ///
    /// The ledger of a run that did not end is unknown and left empty.
    pub fn summary(&self) -> Option<(Summary, Vec<Series>)> {
        let mut run = self.run.clone()?;
        let mut series = self.totals.known_series();
        let Some(end) = &self.end else {
            if self.merge.is_none() {
                run.duration_s = self.totals.length.as_secs_f64();
            }
            return Some((self.totals.summary(run, &series), series));
        };
        let mut order: HashMap<SeriesId, usize> = HashMap::new();
        for (at, id) in end.series.iter().map(|shown| shown.id()).enumerate() {
            if let Some(id) = id {
                order.entry(id).or_insert(at);
            }
        }
        series.retain(|known| order.contains_key(&known.id));
        series.sort_by_key(|known| order[&known.id]);
        let sampling = (run.sampling.hz_of_all_stalls(), run.threshold_ns);
        let sums = self.totals.summary(run, &series);
        // The run itself saw every stall, and TCP's counters.
        let mut stalls = Stalls { by_stage: sums.stalls.by_stage, ..end.stalls.clone() };
        if stalls.time.is_none() {
            let time = sums.stalls.time.unwrap_or_default();
            for culprit in &mut stalls.culprits {
                culprit.share = share_of(culprit.samples, stalls.samples, &time);
            }
            for stall in &mut stalls.worst {
                let estimated = estimate(stall, sampling.0, sampling.1);
                if estimated && self.lost_samples() {
                    forget_overdue(stall);
                }
            }
            stalls.time = (time.stalled_ns > 0).then_some(time);
        }
        Some((Summary { series: sums.series, stalls, ..end.clone() }, series))
    }

    /// The foreign series. In another program's log, stalls are events at or above `threshold_ns`.
    pub fn foreign(&self, threshold_ns: u64) -> Vec<(String, Distribution)> {
        let foreign = self.totals.series.iter().filter_map(|(key, total)| match key {
            SeriesKey::Foreign(tag) => Some((tag.clone(), total.distribution.clone())),
            SeriesKey::Known(_) => None,
        });
        foreign
            .map(|(tag, mut distribution)| {
                if self.run.is_none() {
                    distribution.over_threshold = distribution.count_from(threshold_ns);
                }
                (tag, distribution)
            })
            .collect()
    }

    /// Keeps the series that have all parts of one of `wanted`, such as `stage=napi_poll;if=eth0`.
    pub fn select(&mut self, wanted: &[String]) {
        if !wanted.is_empty() {
            let is_wanted = |key: &SeriesKey| wanted.iter().any(|parts| key.has_parts(parts));
            self.totals.series.retain(|key, _| is_wanted(key));
        }
    }

    /// Start of the run, since the epoch.
    pub fn started(&self) -> Option<Duration> {
        self.run.as_ref()?.started()?.duration_since(std::time::UNIX_EPOCH).ok()
    }
}
