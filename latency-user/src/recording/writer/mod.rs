//! Writes recordings. What it has written stays readable, whatever happens to the process.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{
    encoder::{self, Encoder},
    format::{INTERVAL, IntervalMeta, MERGE, Merge, RUN, SETTINGS, SUMMARY, SeriesMeta},
    output::{self, PRIVATE},
};
use crate::model::{interval::Interval, run::Run, settings::HostSettings, summary::Summary};

/// A longer interval is written in pieces, so that the text of thousands of series is not held.
const PIECE: usize = 1 << 20;

/// A recording that is being written.
pub struct Writer {
    target: Target,
    path: PathBuf,
    encoder: Encoder,
}

/// Where a recording goes.
enum Target {
    File(File),
    /// Takes each interval in one piece.
    Stream(Box<dyn Write + Send>),
}

impl Writer {
    /// Opens or creates the file without truncating it, so that path errors show before measuring.
    /// [`Self::start`] truncates. Only this user may read it.
    ///
    /// # Errors
    ///
    /// When the file cannot be created, or another user may have put it there; the error names it.
    pub fn create(path: &Path) -> Result<Self> {
        Self::create_with(path, PRIVATE)
    }

    /// As [`Self::create`], with these permissions.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn create_with(path: &Path, mode: u32) -> Result<Self> {
        Ok(Self::of(output::open(path, mode)?, path))
    }

    /// Writes to `file`; errors name it `path`.
    pub fn of(file: File, path: &Path) -> Self {
        Self { target: Target::File(file), path: path.to_owned(), encoder: Encoder::new() }
    }

    /// Writes to `out`, each interval in one piece: `out` may leave out pieces, but not parts.
    /// Errors name it `name`.
    pub fn to_stream(out: Box<dyn Write + Send>, name: &str) -> Self {
        Self { target: Target::Stream(out), path: name.into(), encoder: Encoder::new() }
    }

    /// Truncates the file and writes the header. Must be called before the first interval.
    ///
    /// # Errors
    ///
    /// When the file cannot be written (the error names it), or when `run.started_at` is not
    /// an RFC 3339 time.
    pub fn start(&mut self, run: &Run) -> Result<()> {
        let text = encoder::header(run)?;
        if let Some(file) = self.target.regular_file() {
            file.set_len(0)
                .with_context(|| format!("cannot truncate recording {}", self.path.display()))?;
        }
        self.append(&text)
    }

    /// Writes the run's fields again, because they changed: a stage was disabled.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; the error names it.
    pub fn header(&mut self, run: &Run) -> Result<()> {
        self.object(RUN, run)
    }

    /// Writes the settings of the machine, directly after the header.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; the error names it.
    pub fn settings(&mut self, settings: &HostSettings) -> Result<()> {
        self.object(SETTINGS, settings)
    }

    /// Writes what was merged, directly after the header.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; the error names it.
    pub fn merge(&mut self, merge: &Merge) -> Result<()> {
        self.object(MERGE, merge)
    }

    /// Appends one interval, in one piece up to 1 MiB. Its last line closes it; readers skip an
    /// interval that is not closed. Series without events have no line.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; the error names it.
    pub fn interval<K: Display>(&mut self, interval: &Interval<K>) -> Result<()> {
        self.interval_later(interval, Duration::ZERO)
    }

    /// As [`Self::interval`], for a run that started `shift` later than the recording.
    ///
    /// # Errors
    ///
    /// As [`Self::interval`].
    pub fn interval_later<K: Display>(
        &mut self,
        interval: &Interval<K>,
        shift: Duration,
    ) -> Result<()> {
        let start = interval.start.saturating_add(shift);
        let is_large = encoder::is_large(interval);
        let mut text = String::new();
        let mut meta = IntervalMeta {
            start_s: start.as_secs_f64(),
            duration_s: interval.duration.as_secs_f64(),
            steal: interval.steal.clone(),
            merged: interval.merged,
            series: BTreeMap::new(),
        };
        for series in interval.series.iter().filter(|s| !s.distribution.buckets.is_empty()) {
            let tag = series.id.to_string();
            let values = self.encoder.values(&series.distribution, is_large)?;
            encoder::line(&mut text, &tag, (start, interval.duration), &values);
            meta.series.insert(tag, SeriesMeta::new(series.attrs, &series.distribution));
            if text.len() > PIECE && matches!(self.target, Target::File(_)) {
                self.append(&std::mem::take(&mut text))?;
            }
        }
        text.push_str(&encoder::batch(interval)?);
        text.push_str(&encoder::comment(INTERVAL, &meta)?);
        self.append(&text)
    }

    /// Appends the result of the run and syncs the file to disk.
    ///
    /// # Errors
    ///
    /// When the file cannot be written or synced; the error names it.
    pub fn finish(mut self, summary: &Summary) -> Result<()> {
        self.object(SUMMARY, summary)?;
        if let Some(file) = self.target.regular_file() {
            file.sync_all()
                .with_context(|| format!("cannot sync recording {}", self.path.display()))?;
        }
        Ok(())
    }

    /// Appends one object.
    fn object(&mut self, kind: &'static str, body: &impl Serialize) -> Result<()> {
        self.append(&encoder::comment(kind, body)?)
    }

    /// Writes `text` to the kernel, so that it outlives the process.
    fn append(&mut self, text: &str) -> Result<()> {
        let written = match &mut self.target {
            Target::File(file) => file.write_all(text.as_bytes()),
            Target::Stream(out) => out.write_all(text.as_bytes()).and_then(|()| out.flush()),
        };
        written.with_context(|| format!("cannot write recording {}", self.path.display()))
    }
}

impl Target {
    /// The file, if it can be truncated and synced: pipes and devices cannot.
    fn regular_file(&self) -> Option<&File> {
        match self {
            Self::File(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => {
                Some(file)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
