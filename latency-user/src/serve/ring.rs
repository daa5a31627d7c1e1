//! The ring of recordings: segments of a minute, of which the newest are kept.
//!
//! A segment is an ordinary recording. Its header has the wall clock's time of its start; inside it,
//! time is that of the monotonic clock, so that a step of the wall clock tears nothing. The ring of
//! an earlier run is continued.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};

use crate::{
    model::{run::Run, settings::HostSettings, summary::Summary},
    recording::{
        encoder::{self, EncodedInterval},
        format::{COMMENT, IntervalMeta, RUN, SETTINGS, SUMMARY},
        output::{self, PRIVATE},
    },
};

/// Length of a segment.
pub const SEGMENT: Duration = Duration::from_secs(60);

const PREFIX: &str = "segment-";
const SUFFIX: &str = ".hlog";

/// The last line of a segment is not longer.
const LAST_LINE: u64 = 4 << 20;

/// What a ring keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The newest data of this length.
    pub length: Duration,
    /// At most so many bytes, whatever the length.
    pub bytes: u64,
}

/// The ring.
pub struct Ring {
    directory: PathBuf,
    limits: Limits,
    /// Complete ones, oldest first.
    segments: VecDeque<Segment>,
    current: Option<Current>,
    next: u64,
}

/// A segment that is complete.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its file.
    pub path: PathBuf,
    /// How long it lasted.
    pub length: Duration,
    bytes: u64,
}

/// The segment that is being written.
struct Current {
    segment: Segment,
    file: File,
    started: Instant,
    run: Run,
}

/// What a segment starts with.
pub struct Head<'a> {
    /// The header of the run.
    pub run: &'a Run,
    /// Settings of the host.
    pub settings: Option<&'a HostSettings>,
}

impl Ring {
    /// The ring in `directory`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made or read.
    pub fn open(directory: &Path, limits: Limits) -> Result<Self> {
        let place = || format!("cannot keep recordings in {}", directory.display());
        fs::create_dir_all(directory).with_context(place)?;
        let mut known: Vec<(u64, PathBuf)> = fs::read_dir(directory)
            .with_context(place)?
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                Some((number(&path)?, path))
            })
            .collect();
        known.sort();
        let next = known.last().map_or(1, |(last, _)| last + 1);
        let mut segments = VecDeque::new();
        for (_, path) in known {
            match length(&path) {
                Some(length) => {
                    let bytes = path.metadata().map_or(0, |metadata| metadata.len());
                    segments.push_back(Segment { path, length, bytes });
                }
                // It was cut short before its first interval.
                None => remove(&path),
            }
        }
        let mut ring =
            Self { directory: directory.to_owned(), limits, segments, current: None, next };
        ring.forget(0);
        Ok(ring)
    }

    /// Whether the next interval goes into a new segment.
    pub fn is_between(&self) -> bool {
        self.current.is_none()
    }

    /// Whether the current segment is as long as one becomes.
    pub fn is_due(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.segment.length >= SEGMENT)
    }

    /// Adds an interval that ends now. `head` is for a new segment.
    ///
    /// # Errors
    ///
    /// When it cannot be written: it is missing then, and the next one starts a new segment. The
    /// segments before are not affected.
    pub fn add(&mut self, interval: &EncodedInterval, head: &Head<'_>) -> Result<()> {
        let added = self.try_add(interval, head);
        if added.is_ok() {
            return added;
        }
        // The disk may be full: of our own files, the oldest is worth less than what happens now.
        self.give_up();
        if self.segments.len() > 1 && is_full(&added) {
            self.forget_one();
        }
        let added = self.try_add(interval, head);
        if added.is_err() {
            self.give_up();
        }
        added
    }

    fn try_add(&mut self, interval: &EncodedInterval, head: &Head<'_>) -> Result<()> {
        // What is written to a file without a name is lost.
        if self.current.as_ref().is_some_and(|current| !current.is_there()) {
            log::warn!("the current segment was removed by somebody else");
            self.current = None;
        }
        if self.current.is_none() {
            self.start(interval.duration(), head)?;
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        let start = current.started.elapsed().saturating_sub(interval.duration());
        let start = start.max(current.segment.length);
        let text = interval.text(start)?;
        current.append(&text)?;
        current.segment.length = start + interval.duration();
        let bytes = current.segment.bytes;
        self.forget(bytes);
        Ok(())
    }

    /// Starts a segment with an interval of this length that has just ended.
    fn start(&mut self, first: Duration, head: &Head<'_>) -> Result<()> {
        fs::create_dir_all(&self.directory)
            .with_context(|| format!("cannot keep recordings in {}", self.directory.display()))?;
        let path = self.directory.join(format!("{PREFIX}{:012}{SUFFIX}", self.next));
        let file = output::open(&path, PRIVATE)?;
        self.next += 1;
        let started_at = SystemTime::now() - first;
        let started_at = humantime::format_rfc3339_millis(started_at).to_string();
        let run = Run { started_at, duration_s: 0.0, ..head.run.clone() };
        let mut text = encoder::header(&run)?;
        if let Some(settings) = head.settings {
            text.push_str(&encoder::comment(SETTINGS, settings)?);
        }
        let segment = Segment { path, length: Duration::ZERO, bytes: 0 };
        let now = Instant::now();
        let started = now.checked_sub(first).unwrap_or(now);
        let current = self.current.insert(Current { segment, file, started, run });
        current.append(&text)
    }

    /// The header of the run has changed.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn run_changed(&mut self, run: &Run) -> Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        current.run.change_to(run);
        let text = encoder::comment(RUN, &current.run)?;
        current.append(&text)
    }

    /// Completes the current segment. Its summary is what `summarize` makes of its length.
    ///
    /// # Errors
    ///
    /// When the summary cannot be written; what was measured is kept.
    pub fn close(&mut self, summarize: impl FnOnce(Duration) -> Summary) -> Result<()> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let text = encoder::comment(SUMMARY, &summarize(current.segment.length))?;
        let written = current.append(&text);
        self.segments.push_back(current.segment);
        self.forget(0);
        written
    }

    /// Keeps what was written, without a summary.
    fn give_up(&mut self) {
        let Some(Current { segment, .. }) = self.current.take() else { return };
        match segment.length.is_zero() {
            true => remove(&segment.path),
            false => self.segments.push_back(segment),
        }
    }

    /// The complete segments that hold the last `length`, oldest first.
    pub fn last(&self, length: Duration) -> Vec<&Segment> {
        let mut sum = Duration::ZERO;
        let mut last: Vec<&Segment> = Vec::new();
        for segment in self.segments.iter().rev() {
            if sum >= length {
                break;
            }
            sum += segment.length;
            last.push(segment);
        }
        last.reverse();
        last
    }

    /// Removes what is too old or too much, with `more` bytes that are not in a complete segment.
    fn forget(&mut self, more: u64) {
        let mut length: Duration = self.segments.iter().map(|segment| segment.length).sum();
        let mut bytes: u64 = self.segments.iter().map(|segment| segment.bytes).sum::<u64>() + more;
        while let Some(oldest) = self.segments.front() {
            let is_too_long = length.saturating_sub(oldest.length) >= self.limits.length;
            if !is_too_long && bytes <= self.limits.bytes {
                return;
            }
            (length, bytes) = (length - oldest.length, bytes - oldest.bytes);
            self.forget_one();
        }
    }

    fn forget_one(&mut self) {
        if let Some(oldest) = self.segments.pop_front() {
            remove(&oldest.path);
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        log::warn!("cannot remove {}: {error}", path.display());
    }
}

impl Current {
    fn is_there(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
    }

    /// Appends `text`, or nothing.
    fn append(&mut self, text: &str) -> Result<()> {
        let written = self.file.write_all(text.as_bytes());
        if written.is_err() {
            // A part of an interval would make the rest unreadable.
            let cut = self.file.set_len(self.segment.bytes);
            let at = cut.and_then(|()| self.file.seek(SeekFrom::Start(self.segment.bytes)));
            at.with_context(|| format!("cannot cut {}", self.segment.path.display()))?;
        }
        written.with_context(|| format!("cannot write {}", self.segment.path.display()))?;
        self.segment.bytes += text.len() as u64;
        Ok(())
    }
}

/// Whether there was no space left.
fn is_full(result: &Result<()>) -> bool {
    let error = result.as_ref().err().and_then(|error| error.downcast_ref::<io::Error>());
    error.is_some_and(|error| {
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    })
}

fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// How long a recording lasted, from the last interval in it.
fn length(path: &Path) -> Option<Duration> {
    let mut file = File::open(path).ok()?;
    let end = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(end.saturating_sub(LAST_LINE))).ok()?;
    let mut bytes = Vec::new();
    file.take(LAST_LINE).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines().rev().find_map(|line| {
        let object = line.strip_prefix(COMMENT)?;
        // Only the object of an interval has these fields.
        let meta: IntervalMeta = serde_json::from_str(object).ok()?;
        Duration::try_from_secs_f64(meta.start_s + meta.duration_s).ok()
    })
}

#[cfg(test)]
mod tests {
    use latency_common::stage::Stage;

    use super::*;
    use crate::{
        model::{
            distribution::Distribution,
            interval::Interval,
            series::{Location, Series, SeriesKey},
        },
        recording::{encoder::Encoder, join, loaded::RecordingTotals, writer::Writer},
        serve::window::Minute,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(seconds: u64, bytes: u64) -> Limits {
        Limits { length: Duration::from_secs(seconds), bytes }
    }

    fn run() -> Run {
        let text = r#"{"host":"web-17","kernel":"6.12","started_at":"2026-01-02T03:04:05.006Z",
            "duration_s":0,"ifaces":[],"threshold_ns":1000000,"transport":"maps","probes":[],
            "cpus":2,"version":"0"}"#;
        serde_json::from_str(text).unwrap()
    }

    /// An interval of a second with `events` runs of net_rx.
    fn interval(events: u64) -> EncodedInterval {
        let mut durations = Distribution::default();
        for event in 0..events {
            durations.record(1000 + event, 1_000_000, 0);
        }
        let series = Series::new(Stage::NetRx, Location::Cpu(1), durations);
        let interval = Interval::new(Duration::ZERO, SECOND, vec![series]);
        Encoder::new().interval(&interval).unwrap()
    }

    /// Adds intervals with these numbers of events, `each` of them a segment.
    fn fill(ring: &mut Ring, events: impl Iterator<Item = u64>, each: usize) {
        let run = run();
        let head = Head { run: &run, settings: None };
        for (at, events) in events.enumerate() {
            ring.add(&interval(events), &head).unwrap();
            if at % each == each - 1 {
                ring.close(|length| Minute::default().summary(&run, length)).unwrap();
            }
        }
    }

    fn events(paths: &[PathBuf], directory: &Path) -> (u64, u64) {
        let into = directory.join("joined.hlog");
        let joined = join::join(paths, || Writer::create(&into)).unwrap();
        let totals = RecordingTotals::read(&into).unwrap();
        let sum = totals.totals.series.iter().filter_map(|(key, total)| match key {
            SeriesKey::Known(_) => Some(total.distribution.count()),
            SeriesKey::Foreign(_) => None,
        });
        (joined.intervals, sum.sum())
    }

    fn paths(segments: &[&Segment]) -> Vec<PathBuf> {
        segments.iter().map(|segment| segment.path.clone()).collect()
    }

    #[test]
    fn segments_are_kept_by_length_and_joined_without_a_gap() {
        let directory = tempfile::tempdir().unwrap();
        let mut ring = Ring::open(&directory.path().join("ring"), limits(20, 1 << 20)).unwrap();
        fill(&mut ring, 1..=41, 4);
        // 10 complete segments of 4 s; the newest 5 hold 20 s.
        assert_eq!(ring.segments.len(), 5);
        let last = paths(&ring.last(7 * SECOND));
        assert_eq!(last.len(), 2);
        assert_eq!(events(&last, directory.path()), (8, (33..=40).sum()));
        // The next run of the program goes on.
        drop(ring);
        let mut ring = Ring::open(&directory.path().join("ring"), limits(20, 1 << 20)).unwrap();
        assert_eq!(ring.segments.len(), 6);
        assert_eq!(ring.segments.back().unwrap().length.as_secs(), 1);
        fill(&mut ring, 42..=42, 1);
        let all = paths(&ring.last(Duration::MAX));
        assert_eq!(events(&all[all.len() - 3..], directory.path()), (6, (37..=42).sum()));
    }

    #[test]
    fn a_segment_that_cannot_be_read_loses_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("ring");
        let mut ring = Ring::open(&place, limits(100, 1 << 20)).unwrap();
        fill(&mut ring, 1..=6, 2);
        let all = paths(&ring.last(Duration::MAX));
        let text = fs::read_to_string(&all[1]).unwrap();
        // After its first interval, which is kept.
        let at = text.match_indices("\"interval\"").next().unwrap().0;
        let at = at + text[at..].find('\n').unwrap() + 1;
        fs::write(&all[1], format!("{}garbage\n{}", &text[..at], &text[at..])).unwrap();
        assert_eq!(events(&all, directory.path()), (5, 1 + 2 + 3 + 5 + 6));
        fs::write(&all[1], "").unwrap();
        assert_eq!(events(&all, directory.path()), (4, 1 + 2 + 5 + 6));
        // What holds nothing goes when the ring is opened.
        drop(ring);
        assert_eq!(Ring::open(&place, limits(100, 1 << 20)).unwrap().segments.len(), 2);
        assert!(!all[1].exists());
    }

    #[test]
    fn bytes_win() {
        let directory = tempfile::tempdir().unwrap();
        let one = interval(3).text(Duration::ZERO).unwrap().len() as u64;
        let mut ring = Ring::open(directory.path(), limits(1000, 20 * one)).unwrap();
        fill(&mut ring, 1..=40, 4);
        let bytes: u64 = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes <= 20 * one && bytes > 10 * one, "{bytes} of {}", 20 * one);
    }

    #[test]
    fn a_directory_that_vanishes_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("ring");
        let mut ring = Ring::open(&place, limits(100, 1 << 20)).unwrap();
        fill(&mut ring, 1..=3, 2);
        fs::remove_dir_all(&place).unwrap();
        fill(&mut ring, 5..=6, 2);
        let last = ring.last(2 * SECOND);
        assert_eq!(events(&paths(&last), directory.path()), (2, 11));
    }
}
