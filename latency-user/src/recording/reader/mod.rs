//! Reads recordings, and interval logs of other programs, one interval at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::BufRead,
    mem,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    format::{
        COLLAPSE, COMMENT, INTERVAL, IntervalMeta, MERGE, Merge, RUN, SETTINGS, STACKS, STALL,
        SUMMARY, StacksMeta,
    },
    histogram::{self, Budget},
    lines::{Line, Lines},
};
use crate::{
    analysis::{
        culprits::culprits,
        stall_time::{self, estimate},
    },
    model::{
        distribution::Distribution,
        interval::Interval,
        note::Note,
        run::Run,
        schema::SCHEMA_VERSION,
        series::{Series, SeriesKey, attrs::QueueAttrs},
        settings::HostSettings,
        stage::StageName,
        stall::{Stall, batch::StallBatch, time::LocatedTime},
        summary::Summary,
        unit::Unit,
    },
};

pub use super::lines::ReadError;

/// In a log without a base time, timestamps more than this before its start are offsets from it:
/// the rule of HdrHistogram's own reader.
const YEAR_S: f64 = 365.0 * 86_400.0;

/// Tags of different series that a recording may have: a machine of 512 CPUs and 128 queues has
/// fewer.
const MAX_TAGS: usize = 100_000;

/// What a recording consists of, in the order of the file.
#[derive(Debug)]
pub enum RecordingEntry {
    /// The header of the run.
    Run(Run),
    /// Settings of the machine when the run started.
    Settings(HostSettings),
    /// What was merged, in recordings that `merge` wrote.
    Merge(Merge),
    /// What happened in one interval.
    Interval(Interval<SeriesKey>),
    /// The result of the run: the last entry of a recording that was not cut short.
    Summary(Box<Summary>),
}

/// A recording that is being read.
///
/// ```
/// use std::{io::Cursor, path::Path};
///
/// use latency_user::recording::reader::{Reader, RecordingEntry};
///
/// // Any HdrHistogram log will do; this one has no interval yet.
/// let log = "#[StartTime: 1767323045.006 (seconds since epoch)]\n";
/// let mut reader = Reader::from_input(Path::new("run.hlog"), Box::new(Cursor::new(log)));
/// let mut intervals = 0;
/// while let Some(entry) = reader.next_entry()? {
///     intervals += usize::from(matches!(entry, RecordingEntry::Interval(_)));
/// }
/// assert_eq!((intervals, reader.is_ours()), (0, false));
/// # Ok::<(), latency_user::recording::reader::ReadError>(())
/// ```
pub struct Reader {
    lines: Lines,
    /// Whether a comment names the version of the log format.
    has_version: bool,
    /// `StartTime` and `BaseTime`, seconds since the epoch.
    start_s: Option<f64>,
    base_s: Option<f64>,
    ours: bool,
    /// Host and start of the recording.
    run: Option<(String, String)>,
    ended: bool,
    pending: Pending,
    /// What its histograms may still inflate to.
    budget: Budget,
    rounded: bool,
    /// The unit of another program's values, if it was given or is known from its maxima.
    unit: Option<Unit>,
    /// Whether [`Self::unit`] was given.
    unit_is_given: bool,
    /// Whether a histogram so far had a value.
    has_values: bool,
    /// Histograms so far.
    histograms: u64,
    /// Their tags.
    tags: BTreeSet<String>,
    /// Values so far that are beyond the last bucket.
    above: u64,
    /// How stalls were sampled: Hz, and the threshold in ns.
    sampling: (u64, u64),
    has_estimates: bool,
    notes: Vec<Note>,
}

/// Histogram lines of an interval that is not closed yet.
#[derive(Default)]
struct Pending {
    start_s: f64,
    duration_s: f64,
    histograms: BTreeMap<String, Distribution>,
    batch: StallBatch,
}

/// The part of an object that identifies its type.
#[derive(Deserialize)]
struct Head {
    kind: String,
    schema_version: u32,
    stage: Option<StageName>,
}

impl Reader {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Ok(Self::new(Lines::open(path)?))
    }

    /// Reads from `input`; errors name it `path`.
    pub fn from_input(path: &Path, input: Box<dyn BufRead>) -> Self {
        Self::new(Lines::from_input(path, input))
    }

    /// Takes the values of another program's log as in this unit, whatever its maxima say.
    #[must_use]
    pub fn with_unit(self, unit: Option<Unit>) -> Self {
        Self { unit, unit_is_given: unit.is_some(), ..self }
    }

    fn new(lines: Lines) -> Self {
        Self {
            lines,
            has_version: false,
            start_s: None,
            base_s: None,
            ours: false,
            run: None,
            unit_is_given: false,
            has_values: false,
            ended: false,
            pending: Pending::default(),
            budget: Budget::default(),
            rounded: false,
            unit: None,
            histograms: 0,
            tags: BTreeSet::new(),
            above: 0,
            sampling: (0, 0),
            has_estimates: false,
            notes: Vec::new(),
        }
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a line in it is corrupt. A last line that was cut short
    /// is not an error: see [`Self::notes`].
    pub fn next_entry(&mut self) -> Result<Option<RecordingEntry>, ReadError> {
        while !self.ended {
            match self.lines.next()? {
                None if !self.is_log() && !self.ours => {
                    let what = "no histogram and no StartTime: this is no log with lines of text";
                    return Err(self.lines.corrupt(1, what));
                }
                None => return Ok(self.end()),
                Some(line) if line.cut && self.ours => self.leave_out(&line),
                Some(line) if line.cut => match self.line(&line) {
                    // A foreign log may be complete although its last line has no line end.
                    Ok(Some(entry)) => return Ok(Some(entry)),
                    Ok(None) => {}
                    Err(_) if self.is_log() => self.leave_out(&line),
                    Err(error) => return Err(error),
                },
                Some(line) => {
                    if let Some(entry) = self.line(&line)? {
                        return Ok(Some(entry));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Notes about this file. Complete once [`Self::next_entry`] has returned `None`.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Whether it has stalls whose time shares were estimated from the number of their samples,
    /// because the recording is older than they are. Wrong if samples were lost.
    pub fn has_estimates(&self) -> bool {
        self.has_estimates
    }

    /// Whether the file is a recording of this program, as far as it was read.
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// Unit of the values in another program's log, if it was given or its maxima say.
    pub fn unit(&self) -> Option<Unit> {
        self.unit
    }

    /// Whether anything in the file so far shows that it is a log.
    fn is_log(&self) -> bool {
        self.has_version || self.start_s.is_some() || self.base_s.is_some() || self.histograms > 0
    }

    /// When the recording started, if the file has it.
    pub fn started_at(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(self.start_s?).ok()?)
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.lines.bytes()
    }

    fn line(&mut self, line: &Line) -> Result<Option<RecordingEntry>, ReadError> {
        let text = line.text.as_str();
        if let Some(object) = text.strip_prefix(COMMENT) {
            self.object(line, object)
        } else if text.starts_with('#') {
            self.has_version |= text.starts_with("#[Histogram log format");
            self.start_s = stamp(text, "#[StartTime:").or(self.start_s);
            self.base_s = stamp(text, "#[BaseTime:").or(self.base_s);
            Ok(None)
        } else if text.is_empty() || text.starts_with('"') {
            Ok(None)
        } else {
            self.histogram(line)
        }
    }

    /// A comment that carries an object.
    fn object(&mut self, line: &Line, object: &str) -> Result<Option<RecordingEntry>, ReadError> {
        let head: Head = self.parse(line, object)?;
        if head.schema_version > SCHEMA_VERSION {
            let what = format!(
                "schema version {} is newer than {SCHEMA_VERSION}, the newest that this program \
                 reads: a newer latency-user is needed",
                head.schema_version
            );
            return Err(self.lines.corrupt(line.number, what));
        }
        match head.kind.as_str() {
            RUN => {
                let run: Run = self.parse(line, object)?;
                // The header is written again when a stage is disabled.
                let own = (run.host.clone(), run.started_at.clone());
                if self.run.as_ref().is_some_and(|known| *known != own)
                    || self.histograms > 0 && !self.ours
                {
                    let what = "another recording starts here: files are joined by merge";
                    return Err(self.lines.corrupt(line.number, what));
                }
                self.run = Some(own);
                self.ours = true;
                self.sampling = (run.sampling.hz_of_all_stalls(), run.threshold_ns);
                Ok(Some(RecordingEntry::Run(run)))
            }
            SETTINGS => Ok(Some(RecordingEntry::Settings(self.parse(line, object)?))),
            MERGE => Ok(Some(RecordingEntry::Merge(self.parse(line, object)?))),
            SUMMARY => Ok(Some(RecordingEntry::Summary(self.parse(line, object)?))),
            STALL => {
                // A newer version may time more stages: their histograms are foreign series here.
                let known = |stage: &StageName| stage.known().is_some();
                if head.stage.as_ref().is_none_or(known) {
                    let stall = self.stall(line, object)?;
                    self.pending.batch.stalls.push(stall);
                }
                Ok(None)
            }
            COLLAPSE => {
                self.pending.batch.collapses.push(self.parse(line, object)?);
                Ok(None)
            }
            STACKS => {
                let StacksMeta { stacks, times } = self.parse(line, object)?;
                self.pending.batch.stacks.extend(stacks);
                self.pending.batch.times.extend(times.into_iter().flatten());
                Ok(None)
            }
            INTERVAL => {
                let meta = self.parse(line, object)?;
                self.close(line, meta).map(|interval| Some(RecordingEntry::Interval(interval)))
            }
            _ => Ok(None),
        }
    }

    fn parse<T: DeserializeOwned>(&self, line: &Line, object: &str) -> Result<T, ReadError> {
        serde_json::from_str(object)
            .map_err(|error| self.lines.corrupt(line.number, format!("comment object: {error}")))
    }

    /// A histogram line. In a foreign log, an interval ends where the next one starts.
    fn histogram(&mut self, line: &Line) -> Result<Option<RecordingEntry>, ReadError> {
        let corrupt = |what: String| self.lines.corrupt(line.number, what);
        let (tag, rest) = match line.text.strip_prefix("Tag=") {
            Some(rest) => {
                rest.split_once(',').ok_or_else(|| corrupt("tag without a line".into()))?
            }
            None => ("", line.text.as_str()),
        };
        let fields: Vec<&str> = rest.split(',').collect();
        let &[start, length, max, encoded] = &fields[..] else {
            return Err(corrupt(format!(
                "expected 4 fields of a histogram, found {}",
                fields.len()
            )));
        };
        let number = |text: &str, what| match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
            _ => Err(corrupt(format!("{what} {text:?} is not a number of seconds"))),
        };
        let (start_s, duration_s) = (number(start, "start")?, number(length, "length")?);
        let bytes = STANDARD
            .decode(encoded.trim_end())
            .map_err(|error| corrupt(format!("histogram is not base64: {error}")))?;
        self.budget.add_line(line.text.len());
        let decode = |unit_ns, budget: &mut Budget| {
            histogram::decode(&bytes, unit_ns, budget).map_err(|error| corrupt(error.to_string()))
        };
        let unit_ns = if self.ours { 1 } else { self.unit.map_or(1, Unit::ns) };
        let mut decoded = decode(unit_ns, &mut self.budget)?;
        if !self.ours
            && !self.unit_is_given
            && let Some(unit) = unit_by_maximum(max, decoded.highest)
        {
            // What came before was taken as ns, if its maxima did not say.
            let known = self.unit.or(self.has_values.then_some(Unit::Ns));
            if known.is_some_and(|known| known != unit) {
                return Err(corrupt(format!(
                    "its maximum says that values are in {}, those before it are in {}: --unit \
                     decides",
                    unit.name(),
                    known.unwrap_or(Unit::Ns).name()
                )));
            }
            if unit != Unit::Ns && self.unit.is_none() {
                self.notes.push(Note::UnitByMaximum { file: self.file(), unit });
                decoded = decode(unit.ns(), &mut self.budget)?;
            }
            self.unit = Some(unit);
        }
        self.has_values |= decoded.highest > 0;
        self.histograms += 1;
        if !self.tags.contains(tag) {
            if self.tags.len() == MAX_TAGS {
                return Err(corrupt(format!("more than {MAX_TAGS} different tags")));
            }
            self.tags.insert(tag.to_owned());
        }
        self.above = self.above.saturating_add(decoded.above);
        self.rounded |= !decoded.same_buckets;
        // Intervals of one tag do not overlap, whatever their timestamps are.
        let started = !self.pending.histograms.is_empty()
            && (start_s != self.pending.start_s || self.pending.histograms.contains_key(tag));
        let closed = if started && !self.ours { self.close_foreign() } else { None };
        if self.pending.histograms.is_empty() {
            self.pending.start_s = start_s;
        }
        self.pending.duration_s = self.pending.duration_s.max(duration_s);
        if self.pending.histograms.insert(tag.to_owned(), decoded.distribution).is_some() {
            let what = format!("tag {tag:?} twice in one interval");
            return Err(self.lines.corrupt(line.number, what));
        }
        Ok(closed.map(RecordingEntry::Interval))
    }

    /// A stall. In recordings without its culprits, they are derived from its stacks; without its
    /// time shares, they are estimated.
    fn stall(&mut self, line: &Line, object: &str) -> Result<Stall, ReadError> {
        let mut stall: Stall = self.parse(line, object)?;
        if stall.culprits.is_empty() {
            stall.culprits = culprits(&stall.stacks, &stall.time());
        }
        let (hz, threshold_ns) = self.sampling;
        self.has_estimates |= estimate(&mut stall, hz, threshold_ns);
        Ok(stall)
    }

    /// Closes an interval of a recording: its object has the data that histograms cannot hold.
    fn close(&mut self, line: &Line, meta: IntervalMeta) -> Result<Interval<SeriesKey>, ReadError> {
        let corrupt = |what: String| self.lines.corrupt(line.number, what);
        let time = |seconds, what| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|_| corrupt(format!("{what} {seconds:?} is not a number of seconds")))
        };
        let start = time(meta.start_s, "start_s")?;
        let duration = time(meta.duration_s, "duration_s")?;
        let mut series = Vec::with_capacity(meta.series.len());
        let Pending { histograms, mut batch, .. } = mem::take(&mut self.pending);
        if self.has_estimates && batch.times.is_empty() {
            let time = stall_time::times(&batch.stalls);
            batch.times.push(LocatedTime { time, ..LocatedTime::default() });
        }
        for (tag, mut distribution) in histograms {
            let meta = meta
                .series
                .get(&tag)
                .ok_or_else(|| corrupt(format!("interval without an entry for {tag:?}")))?;
            if meta.over_threshold > distribution.count() {
                let n = distribution.count();
                let stalls = meta.over_threshold;
                return Err(corrupt(format!("{tag:?} has {stalls} stalls in {n} events")));
            }
            distribution.sum_ns = meta.sum_ns;
            distribution.max_ns = meta.max_ns;
            distribution.over_threshold = meta.over_threshold;
            distribution.work = meta.work;
            series.push(Series { id: SeriesKey::of_tag(&tag), attrs: meta.attrs(), distribution });
        }
        if series.len() != meta.series.len() {
            let missing = meta.series.len() - series.len();
            return Err(corrupt(format!("interval lacks {missing} of its histograms")));
        }
        series.sort_by(|a, b| a.id.cmp(&b.id));
        let (steal, merged) = (meta.steal, meta.merged);
        Ok(Interval { start, duration, series, batch, steal, merged })
    }

    /// Closes an interval of a foreign log.
    fn close_foreign(&mut self) -> Option<Interval<SeriesKey>> {
        let pending = mem::take(&mut self.pending);
        if pending.histograms.is_empty() {
            return None;
        }
        let start_s = self.start_s.unwrap_or(0.0);
        let base_s =
            self.base_s.unwrap_or(if pending.start_s < start_s - YEAR_S { start_s } else { 0.0 });
        let offset = base_s + pending.start_s - start_s;
        let mut series: Vec<_> = pending
            .histograms
            .into_iter()
            .map(|(tag, distribution)| Series {
                // Its tags are its own, even if they look like ours.
                id: SeriesKey::Foreign(tag),
                attrs: QueueAttrs::default(),
                distribution,
            })
            .collect();
        series.sort_by(|a, b| a.id.cmp(&b.id));
        Some(Interval {
            start: Duration::try_from_secs_f64(offset).unwrap_or_default(),
            duration: Duration::try_from_secs_f64(pending.duration_s).unwrap_or_default(),
            series,
            batch: StallBatch::default(),
            steal: None,
            merged: None,
        })
    }

    fn leave_out(&mut self, line: &Line) {
        self.notes.push(Note::LineCutShort {
            file: self.file(),
            line: line.number,
            bytes: line.text.len() as u64,
        });
    }

    fn end(&mut self) -> Option<RecordingEntry> {
        self.ended = true;
        if self.rounded {
            self.notes.push(Note::RoundedToBuckets { file: self.file() });
        }
        if self.above > 0 {
            self.notes.push(Note::AboveLastBucket { file: self.file(), values: self.above });
        }
        if self.histograms == 0 && !self.ours {
            self.notes.push(Note::NoHistograms { file: self.file() });
        }
        let histograms = self.pending.histograms.len() as u64;
        if self.ours && histograms > 0 {
            self.notes.push(Note::IntervalCutShort { file: self.file(), histograms });
            return None;
        }
        self.close_foreign().map(RecordingEntry::Interval)
    }

    fn file(&self) -> String {
        self.lines.path().display().to_string()
    }
}

/// The unit in which `Interval_Max`, which logs give in units of a million of their own, is the
/// maximum of a histogram. `None`: it is 0, or in none.
fn unit_by_maximum(max: &str, highest: u64) -> Option<Unit> {
    let max: f64 = max.trim().parse().ok().filter(|max| *max > 0.0)?;
    let ratio = max * 1e6 / highest as f64;
    // A bucket ends up to a sixteenth above the maximum in it.
    Unit::ALL.into_iter().find(|unit| (0.9..1.01).contains(&(ratio / unit.ns() as f64)))
}

/// The seconds in a comment such as `#[StartTime: 1767323045.006 (seconds since epoch), ...]`.
fn stamp(text: &str, name: &str) -> Option<f64> {
    let seconds = text.strip_prefix(name)?.split_whitespace().next()?.parse::<f64>().ok()?;
    seconds.is_finite().then_some(seconds)
}

#[cfg(test)]
mod tests;
