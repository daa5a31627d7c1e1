//! Writes recordings. What it has written stays readable, whatever happens to the process.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use serde::Serialize;

use super::{
    format::{
        COLLAPSE, COMMENT, INTERVAL, IntervalMeta, LEGEND, MAX_VALUE_DIVISOR, MERGE, Merge, RUN,
        SETTINGS, STACKS, STALL, SUMMARY, SeriesMeta, StacksMeta, VERSION_LINE,
    },
    output::{self, PRIVATE},
};
use crate::model::{
    distribution::Distribution, interval::Interval, run::Run, schema::Envelope,
    settings::HostSettings, summary::Summary,
};

/// A longer interval is written in pieces, so that the text of thousands of series is not held.
const PIECE: usize = 1 << 20;

/// A recording that is being written.
pub struct Writer {
    file: File,
    path: PathBuf,
    serializer: V2DeflateSerializer,
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
        Self { file, path: path.to_owned(), serializer: V2DeflateSerializer::new() }
    }

    /// Truncates the file and writes the header. Must be called before the first interval.
    ///
    /// # Errors
    ///
    /// When the file cannot be written (the error names it), or when `run.started_at` is not
    /// an RFC 3339 time.
    pub fn start(&mut self, run: &Run) -> Result<()> {
        let started = run
            .started()
            .with_context(|| format!("start of the run {:?} is not a time", run.started_at))?;
        // Pipes and devices cannot be truncated and do not need to be.
        if self.file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            self.file
                .set_len(0)
                .with_context(|| format!("cannot truncate recording {}", self.path.display()))?;
        }
        let epoch = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut text = format!(
            "{VERSION_LINE}\n#[StartTime: {} (seconds since epoch), {}]\n",
            seconds(epoch),
            run.started_at
        );
        comment(&mut text, RUN, run)?;
        text.push_str(LEGEND);
        text.push('\n');
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
            let time = (start, interval.duration);
            self.histogram(&mut text, &tag, time, &series.distribution)?;
            meta.series.insert(tag, SeriesMeta::new(series.attrs, &series.distribution));
            if text.len() > PIECE {
                self.append(&std::mem::take(&mut text))?;
            }
        }
        for stall in &interval.batch.stalls {
            comment(&mut text, STALL, stall)?;
        }
        for collapse in &interval.batch.collapses {
            comment(&mut text, COLLAPSE, collapse)?;
        }
        let batch = &interval.batch;
        if !batch.stacks.is_empty() || !batch.times.is_empty() {
            let (stacks, times) = (batch.stacks.clone(), Some(batch.times.clone()));
            comment(&mut text, STACKS, &StacksMeta { stacks, times })?;
        }
        comment(&mut text, INTERVAL, &meta)?;
        self.append(&text)
    }

    /// Appends the result of the run and syncs the file to disk.
    ///
    /// # Errors
    ///
    /// When the file cannot be written or synced; the error names it.
    pub fn finish(mut self, summary: &Summary) -> Result<()> {
        self.object(SUMMARY, summary)?;
        // Pipes and devices cannot be synced.
        let regular = self.file.metadata().is_ok_and(|metadata| metadata.is_file());
        if regular {
            self.file
                .sync_all()
                .with_context(|| format!("cannot sync recording {}", self.path.display()))?;
        }
        Ok(())
    }

    /// Appends a histogram line.
    fn histogram(
        &mut self,
        text: &mut String,
        tag: &str,
        (start, duration): (Duration, Duration),
        distribution: &Distribution,
    ) -> Result<()> {
        let (start, duration) = (seconds(start), seconds(duration));
        let max = distribution.max_ns as f64 / MAX_VALUE_DIVISOR;
        let histogram = self.compress(distribution)?;
        // A series of another program may have no tag: it is written without one, too.
        let tag = if tag.is_empty() { String::new() } else { format!("Tag={tag},") };
        text.push_str(&format!("{tag}{start},{duration},{max:.3},{histogram}\n"));
        Ok(())
    }

    /// The last field of a histogram line.
    fn compress(&mut self, distribution: &Distribution) -> Result<String> {
        let mut bytes = Vec::new();
        self.serializer
            .serialize(&distribution.histogram(), &mut bytes)
            .context("cannot compress a histogram")?;
        Ok(STANDARD.encode(bytes))
    }

    /// Appends one object.
    fn object(&mut self, kind: &'static str, body: &impl Serialize) -> Result<()> {
        let mut text = String::new();
        comment(&mut text, kind, body)?;
        self.append(&text)
    }

    /// Writes `text` to the kernel, so that it outlives the process.
    fn append(&mut self, text: &str) -> Result<()> {
        self.file
            .write_all(text.as_bytes())
            .with_context(|| format!("cannot write recording {}", self.path.display()))
    }
}

/// Appends a comment line that carries `body`.
fn comment(text: &mut String, kind: &'static str, body: &impl Serialize) -> Result<()> {
    let object = serde_json::to_string(&Envelope::new(kind, body))
        .with_context(|| format!("cannot write the {kind} of a recording as JSON"))?;
    text.push_str(&format!("{COMMENT} {object}\n"));
    Ok(())
}

/// Seconds with three decimals, which every reader understands.
fn seconds(duration: Duration) -> String {
    format!("{}.{:03}", duration.as_secs(), duration.subsec_millis())
}

#[cfg(test)]
mod tests;
