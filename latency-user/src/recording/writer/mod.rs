//! Writes recordings. What it has written stays readable, whatever happens to the process.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use serde::Serialize;

use crate::model::{
    distribution::Distribution,
    envelope::Envelope,
    interval::Interval,
    run::Run,
    series::{Owner, Queue, Series},
    settings::Settings,
    source::Source,
    stall::{Stack, Stall, collapse::Collapse},
    summary::Summary,
};

use super::format::{
    COLLAPSE, COMMENT, INTERVAL, IntervalBooks, IntervalStacks, LEGEND, MAX_VALUE_DIVISOR, MERGE,
    Merge, RUN, SETTINGS, STACKS, STALL, SUMMARY, SeriesBooks, VERSION_LINE,
};
use super::reader::RecordedInterval;

/// A recording that is being written.
pub struct Writer {
    file: File,
    path: PathBuf,
    started_at: SystemTime,
    serializer: V2DeflateSerializer,
}

impl Writer {
    /// Creates the file, or opens one to be emptied. Nothing can be measured in vain after that.
    ///
    /// # Errors
    ///
    /// When the file cannot be created; the error names it.
    pub fn create(path: &Path) -> Result<Self> {
        // Emptied by the header: what is there stays if the run never begins.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(|| format!("cannot create recording {}", path.display()))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            started_at: UNIX_EPOCH,
            serializer: V2DeflateSerializer::new(),
        })
    }

    /// Writes the header. It comes before the first interval.
    ///
    /// # Errors
    ///
    /// When the file cannot be written (the error names it), or when `run.started_at` is no
    /// RFC 3339 time.
    pub fn begin(&mut self, run: &Run) -> Result<()> {
        self.started_at = humantime::parse_rfc3339(&run.started_at)
            .with_context(|| format!("start of the run {:?} is not a time", run.started_at))?;
        // Pipes and devices cannot be emptied, and need not be.
        if self.file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            self.file
                .set_len(0)
                .with_context(|| format!("cannot empty recording {}", self.path.display()))?;
        }
        let epoch = self.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
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

    /// Writes the run's fields again, because they changed: a stage was given up.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; the error names it.
    pub fn header(&mut self, run: &Run) -> Result<()> {
        let mut text = String::new();
        comment(&mut text, RUN, run)?;
        self.append(&text)
    }

    /// Writes what the machine was set to, right behind the header.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; the error names it.
    pub fn settings(&mut self, settings: &Settings) -> Result<()> {
        let mut text = String::new();
        comment(&mut text, SETTINGS, settings)?;
        self.append(&text)
    }

    /// Appends one interval in one piece. Series without events leave no line.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; the error names it.
    pub fn interval(&mut self, interval: &Interval) -> Result<()> {
        let start = interval.began_at.duration_since(self.started_at).unwrap_or_default();
        let mut text = String::new();
        let mut books = IntervalBooks {
            start_s: start.as_secs_f64(),
            duration_s: interval.duration.as_secs_f64(),
            series: BTreeMap::new(),
        };
        for (tag, (series, distribution)) in by_tag(interval) {
            self.histogram(&mut text, &tag, (start, interval.duration), &distribution)?;
            books.series.insert(tag, SeriesBooks::new(Some(series), &distribution));
        }
        let (stalls, collapses) = (&interval.stalls, &interval.collapses);
        close_interval(&mut text, stalls, collapses, &interval.stacks, &books)?;
        self.append(&text)
    }

    /// Appends the result of the run and waits until all of the file is on disk.
    ///
    /// # Errors
    ///
    /// When the file cannot be written or synced; the error names it.
    pub fn finish(mut self, summary: &Summary) -> Result<()> {
        let mut text = String::new();
        comment(&mut text, SUMMARY, summary)?;
        self.append(&text)?;
        // Pipes and devices cannot be synced.
        let regular = self.file.metadata().is_ok_and(|metadata| metadata.is_file());
        if regular {
            self.file
                .sync_all()
                .with_context(|| format!("cannot sync recording {}", self.path.display()))?;
        }
        Ok(())
    }

    /// Appends what was merged, in one interval, with the sources as they are.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; the error names it.
    pub fn merged(&mut self, merge: &Merge, interval: &RecordedInterval) -> Result<()> {
        let mut text = String::new();
        comment(&mut text, MERGE, merge)?;
        let mut books = IntervalBooks {
            start_s: interval.start.as_secs_f64(),
            duration_s: interval.duration.as_secs_f64(),
            series: BTreeMap::new(),
        };
        for (source, distribution) in &interval.series {
            let (tag, series) = match source {
                Source::Series(series) => (series.tag(), Some(series)),
                Source::Plain(tag) => (tag.clone(), None),
            };
            self.histogram(&mut text, &tag, (interval.start, interval.duration), distribution)?;
            books.series.insert(tag, SeriesBooks::new(series, distribution));
            // Thousands of series are not held as text.
            self.append(&std::mem::take(&mut text))?;
        }
        let (stalls, collapses) = (&interval.stalls, &interval.collapses);
        close_interval(&mut text, stalls, collapses, &interval.stacks, &books)?;
        self.append(&text)
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
        // The series without a tag, of another program, has none here either.
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

    /// Hands `text` to the kernel: after that, the end of the process does not matter to it.
    fn append(&mut self, text: &str) -> Result<()> {
        self.file
            .write_all(text.as_bytes())
            .with_context(|| format!("cannot write recording {}", self.path.display()))
    }
}

impl SeriesBooks {
    fn new(series: Option<&Series>, distribution: &Distribution) -> Self {
        let (napi_id, irq) = series.map_or((None, None), |series| instance(&series.owner));
        Self {
            sum_ns: distribution.sum_ns,
            max_ns: distribution.max_ns,
            over_threshold: distribution.over_threshold,
            work: distribution.work,
            napi_id: napi_id.filter(|id| *id != 0),
            irq,
        }
    }
}

/// Appends what comes behind the histograms of an interval; the books are its last line.
fn close_interval(
    text: &mut String,
    stalls: &[Stall],
    collapses: &[Collapse],
    stacks: &[Stack],
    books: &IntervalBooks,
) -> Result<()> {
    for stall in stalls {
        comment(text, STALL, stall)?;
    }
    for collapse in collapses {
        comment(text, COLLAPSE, collapse)?;
    }
    if !stacks.is_empty() {
        comment(text, STACKS, &IntervalStacks { stacks: stacks.to_vec() })?;
    }
    comment(text, INTERVAL, books)
}

/// NAPI id and IRQ of a queue, as far as they are known.
fn instance(owner: &Owner) -> (Option<u32>, Option<u32>) {
    match owner {
        Owner::Queue(Queue::Device { napi_id, irq, .. }) => (Some(*napi_id), *irq),
        Owner::OnHost { owner, .. } => instance(owner),
        _ => (None, None),
    }
}

/// The series that recorded something. A queue whose NAPI instance was replaced meanwhile has two
/// series and one tag; the first of them stands for both.
fn by_tag(interval: &Interval) -> BTreeMap<String, (&Series, Distribution)> {
    let mut tags: BTreeMap<String, (&Series, Distribution)> = BTreeMap::new();
    for (series, distribution) in interval.series.iter().filter(|(_, d)| !d.buckets.is_empty()) {
        let entry = tags.entry(series.tag()).or_insert_with(|| (series, Distribution::default()));
        entry.1.add(distribution);
    }
    tags
}

/// Appends a comment line that carries `body`.
fn comment(text: &mut String, kind: &'static str, body: &impl Serialize) -> Result<()> {
    let object = serde_json::to_string(&Envelope::new(kind, body))
        .with_context(|| format!("cannot write the {kind} of a recording as JSON"))?;
    text.push_str(&format!("{COMMENT} {object}\n"));
    Ok(())
}

/// Seconds with three digits behind the point, which every reader understands.
fn seconds(duration: Duration) -> String {
    format!("{}.{:03}", duration.as_secs(), duration.subsec_millis())
}

#[cfg(test)]
mod tests;
