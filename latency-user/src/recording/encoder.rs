//! The text of a recording: what [`writer`](super::writer) writes to a file, and a daemon to its
//! clients.

use std::{
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;

use super::{
    deflated::Deflater,
    format::{
        COLLAPSE, COMMENT, INTERVAL, IntervalMeta, LEGEND, MAX_VALUE_DIVISOR, RUN, STACKS, STALL,
        SeriesMeta, StacksMeta, VERSION_LINE,
    },
};
use crate::model::{distribution::Distribution, interval::Interval, run::Run, schema::Envelope};

/// Measured intervals with more series than this are stored: to compress them each second would take
/// percents of a CPU.
const COMPRESSED: usize = 256;

/// Compresses histograms, and keeps the memory that this takes.
pub struct Encoder {
    deflater: Deflater,
    /// For intervals with many series.
    storer: Deflater,
}

/// An interval whose histograms are compressed: its text for any start of the recording.
pub struct EncodedInterval {
    duration: Duration,
    /// Tag, and what follows the times in its line.
    lines: Vec<(String, String)>,
    series: BTreeMap<String, SeriesMeta>,
    /// Stalls, collapses and stacks.
    batch: String,
    steal: Option<Vec<crate::model::stall::time::CpuSteal>>,
}

impl Encoder {
    /// An encoder that takes few bytes.
    pub fn new() -> Self {
        Self { deflater: Deflater::new(), storer: Deflater::storing() }
    }

    /// An encoder that takes little time, and more bytes.
    pub fn quick() -> Self {
        Self { deflater: Deflater::storing(), storer: Deflater::storing() }
    }

    /// Compresses an interval that was measured.
    ///
    /// # Errors
    ///
    /// When something cannot be compressed or is no JSON.
    pub fn interval<K: std::fmt::Display>(
        &mut self,
        interval: &Interval<K>,
    ) -> Result<EncodedInterval> {
        let is_large = is_large(interval);
        let mut lines = Vec::with_capacity(interval.series.len());
        let mut series = BTreeMap::new();
        for one in interval.series.iter().filter(|s| !s.distribution.buckets.is_empty()) {
            let tag = one.id.to_string();
            lines.push((tag.clone(), self.values(&one.distribution, is_large)?));
            series.insert(tag, SeriesMeta::new(one.attrs, &one.distribution));
        }
        Ok(EncodedInterval {
            duration: interval.duration,
            lines,
            series,
            batch: batch(interval)?,
            steal: interval.steal.clone(),
        })
    }

    /// The last two fields of a histogram line; `is_large`: of an interval that [`is_large`].
    pub(super) fn values(&mut self, distribution: &Distribution, is_large: bool) -> Result<String> {
        let max = distribution.max_ns as f64 / MAX_VALUE_DIVISOR;
        let deflater = if is_large { &mut self.storer } else { &mut self.deflater };
        let bytes = deflater.deflate(distribution).context("cannot encode a histogram")?;
        Ok(format!("{max:.3},{}", STANDARD.encode(bytes)))
    }
}

/// Whether an interval was measured and has many series.
pub(super) fn is_large<K>(interval: &Interval<K>) -> bool {
    interval.merged.is_none() && interval.series.len() > COMPRESSED
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl EncodedInterval {
    /// How long the interval lasted.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Its text in a recording that had started `start` before it.
    ///
    /// # Errors
    ///
    /// When something is no JSON.
    pub fn text(&self, start: Duration) -> Result<String> {
        let values: usize = self.lines.iter().map(|(tag, values)| tag.len() + values.len()).sum();
        let mut text = String::with_capacity(values + self.batch.len() + self.lines.len() * 160);
        for (tag, values) in &self.lines {
            line(&mut text, tag, (start, self.duration), values);
        }
        text.push_str(&self.batch);
        let meta = IntervalMeta {
            start_s: start.as_secs_f64(),
            duration_s: self.duration.as_secs_f64(),
            steal: self.steal.clone(),
            merged: None,
            series: self.series.clone(),
        };
        text.push_str(&comment(INTERVAL, &meta)?);
        Ok(text)
    }
}

/// The lines before the first interval.
///
/// # Errors
///
/// When `run.started_at` is not an RFC 3339 time.
pub fn header(run: &Run) -> Result<String> {
    let started = run
        .started()
        .with_context(|| format!("start of the run {:?} is not a time", run.started_at))?;
    let epoch = started.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut text = format!(
        "{VERSION_LINE}\n#[StartTime: {} (seconds since epoch), {}]\n",
        seconds(epoch),
        run.started_at
    );
    text.push_str(&comment(RUN, run)?);
    text.push_str(LEGEND);
    text.push('\n');
    Ok(text)
}

/// A comment line that carries `body`.
///
/// # Errors
///
/// When `body` is no JSON.
pub fn comment(kind: &'static str, body: &impl Serialize) -> Result<String> {
    let object = serde_json::to_string(&Envelope::new(kind, body))
        .with_context(|| format!("cannot write the {kind} of a recording as JSON"))?;
    Ok(format!("{COMMENT} {object}\n"))
}

/// Appends a histogram line.
pub(super) fn line(
    text: &mut String,
    tag: &str,
    (start, duration): (Duration, Duration),
    values: &str,
) {
    // A series of another program may have no tag: it is written without one, too.
    if !tag.is_empty() {
        text.push_str(&format!("Tag={tag},"));
    }
    text.push_str(&format!("{},{},{values}\n", seconds(start), seconds(duration)));
}

/// The stalls, collapses and stacks of an interval.
pub(super) fn batch<K>(interval: &Interval<K>) -> Result<String> {
    let mut text = String::new();
    for stall in &interval.batch.stalls {
        text.push_str(&comment(STALL, stall)?);
    }
    for collapse in &interval.batch.collapses {
        text.push_str(&comment(COLLAPSE, collapse)?);
    }
    let batch = &interval.batch;
    if !batch.stacks.is_empty() || !batch.times.is_empty() {
        let (stacks, times) = (batch.stacks.clone(), Some(batch.times.clone()));
        text.push_str(&comment(STACKS, &StacksMeta { stacks, times })?);
    }
    Ok(text)
}

/// Seconds with three decimals, which every reader understands.
fn seconds(duration: Duration) -> String {
    format!("{}.{:03}", duration.as_secs(), duration.subsec_millis())
}
