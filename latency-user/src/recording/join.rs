//! Joining recordings in time: those of one run, one after the other, as one recording.
//!
//! No interval is added up with another (see [`merge`](super::merge) for that). Ledgers are.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};

use super::{
    reader::{ReadError, Reader, RecordingEntry},
    writer::Writer,
};
use crate::{
    analysis::totals::{RunEnd, Totals},
    model::{
        interval::Interval, note::Note, run::Run, series::SeriesKey, settings::HostSettings,
        summary::Summary,
    },
};

/// What was joined.
#[derive(Debug, Default)]
pub struct Joined {
    /// Number of intervals.
    pub intervals: u64,
    /// From the start of the first one to the end of the last one.
    pub length: Duration,
    /// Notes on the files.
    pub notes: Vec<Note>,
    /// Why some of them could not be read, from some line on.
    pub unread: Vec<String>,
}

/// Writes the recordings at `paths`, in this order, as one. `write_into` opens it; it is not called
/// when there is no interval.
///
/// Each starts when its header says, but not before the end of the one before: the clock of the host
/// may have been set back.
///
/// # Errors
///
/// When the result cannot be written, or a recording is another program's log.
pub fn join(paths: &[PathBuf], write_into: impl FnOnce() -> Result<Writer>) -> Result<Joined> {
    let mut joined = Joined::default();
    let mut whole = Whole::default();
    let mut write_into = Some(write_into);
    for path in paths {
        let mut part = match Part::open(path) {
            Ok(part) => part,
            Err(error) => {
                whole.has_all_ends = false;
                joined.unread.push(error.to_string());
                continue;
            }
        };
        let mut start = Duration::ZERO;
        let mut ended = false;
        loop {
            let entry = match part.reader.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                // What came before it is kept, and so are the others.
                Err(error) => {
                    joined.unread.push(error.to_string());
                    break;
                }
            };
            match entry {
                RecordingEntry::Run(run) => {
                    start = part.run(run, &whole)?;
                    whole.change(part.run.as_ref())?;
                }
                RecordingEntry::Settings(settings) => part.settings = Some(settings),
                RecordingEntry::Interval(interval) => {
                    if let Some(create) = write_into.take() {
                        whole.begin(create()?, &part, interval.start)?;
                        start = Duration::ZERO;
                        part.skipped = interval.start;
                    }
                    let at = start + interval.start.saturating_sub(part.skipped);
                    whole.add(&Interval { start: at, ..interval })?;
                    joined.intervals += 1;
                }
                RecordingEntry::Summary(summary) => {
                    ended = true;
                    whole.end(*summary);
                }
                RecordingEntry::Merge(_) => {}
            }
        }
        whole.has_all_ends &= ended;
        joined.notes.extend_from_slice(part.reader.notes());
    }
    joined.length = whole.totals.length;
    whole.finish()?;
    Ok(joined)
}

/// One of the recordings.
struct Part {
    reader: Reader,
    run: Option<Run>,
    started: Option<SystemTime>,
    settings: Option<HostSettings>,
    /// Of the first part: the time before its first interval.
    skipped: Duration,
}

impl Part {
    fn open(path: &Path) -> Result<Self, ReadError> {
        let reader = Reader::open(path)?;
        Ok(Self { reader, run: None, started: None, settings: None, skipped: Duration::ZERO })
    }

    /// Takes the header and returns when this part starts, counted from the start of the whole.
    fn run(&mut self, run: Run, whole: &Whole) -> Result<Duration> {
        let started = run
            .started()
            .with_context(|| format!("start of the run {:?} is not a time", run.started_at))?;
        (self.run, self.started) = (Some(run), Some(started));
        let Some(first) = whole.started else { return Ok(Duration::ZERO) };
        Ok(started.duration_since(first).unwrap_or_default().max(whole.totals.length))
    }
}

/// The result.
struct Whole {
    writer: Option<Writer>,
    run: Option<Run>,
    started: Option<SystemTime>,
    totals: Totals<SeriesKey>,
    end: Option<RunEnd>,
    has_all_ends: bool,
}

impl Default for Whole {
    fn default() -> Self {
        Self {
            writer: None,
            run: None,
            started: None,
            totals: Totals::default(),
            end: None,
            has_all_ends: true,
        }
    }
}

impl Whole {
    /// The first interval starts `before` after the header of its part.
    fn begin(&mut self, mut writer: Writer, part: &Part, before: Duration) -> Result<()> {
        let (Some(run), Some(started)) = (&part.run, part.started) else {
            anyhow::bail!("an interval without a header: another program's log");
        };
        let started = started + before;
        let started_at = humantime::format_rfc3339_millis(started).to_string();
        let run = Run { started_at, ..run.clone() };
        writer.start(&run)?;
        if let Some(settings) = &part.settings {
            writer.settings(settings)?;
        }
        (self.writer, self.run, self.started) = (Some(writer), Some(run), Some(started));
        Ok(())
    }

    /// The header of a part: how stages are timed may have changed.
    fn change(&mut self, part: Option<&Run>) -> Result<()> {
        if let (Some(run), Some(part), Some(writer)) = (&mut self.run, part, &mut self.writer)
            && run.change_to(part)
        {
            writer.header(run)?;
        }
        Ok(())
    }

    fn add(&mut self, interval: &Interval<SeriesKey>) -> Result<()> {
        self.totals.add(interval);
        match &mut self.writer {
            Some(writer) => writer.interval(interval),
            None => Ok(()),
        }
    }

    fn end(&mut self, summary: Summary) {
        let part = RunEnd {
            ledger: summary.ledger,
            self_cost: summary.self_cost,
            tcp: summary.stalls.tcp,
        };
        match &mut self.end {
            Some(end) => end.continue_with(part),
            None => self.end = Some(part),
        }
    }

    fn finish(mut self) -> Result<()> {
        let (Some(writer), Some(mut run)) = (self.writer, self.run) else { return Ok(()) };
        let Some(end) = self.end.filter(|_| self.has_all_ends) else { return Ok(()) };
        run.duration_s = self.totals.length.as_secs_f64();
        self.totals.end = Some(end);
        let series = self.totals.known_series();
        writer.finish(&self.totals.summary(run, &series))
    }
}
