//! The comparison of two recordings.

use serde::Serialize;

use super::note::Note;

/// What a comparison concludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Something stalls less often than before, nothing more often.
    Improved,
    /// Something stalls more often than before.
    Worse,
    /// No difference beyond chance.
    NoDifferenceShown,
    /// The recordings do not allow an answer.
    NotComparable,
}

/// Everything that was compared.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The conclusion.
    pub verdict: Verdict,
    /// Whether the conclusion is a weak one: the two loads differ much, or there are too few
    /// intervals to see how stalls cluster.
    pub weak: bool,
    /// Notes: differences of kernel, threshold or method, and what was left out.
    pub notes: Vec<Note>,
    /// The recording before the change.
    pub before: ComparedSide,
    /// The recording after it.
    pub after: ComparedSide,
    /// Number of tests that the conclusion is corrected for.
    pub tests: usize,
    /// Stages, each summed over its series.
    pub stages: Vec<ComparedRow>,
    /// Single series.
    pub series: Vec<ComparedRow>,
}

/// One of the recordings.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedSide {
    /// Its file.
    pub recording: String,
    /// Name of the host; absent in logs of other programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Release of the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Time that its intervals cover, seconds.
    pub duration_s: f64,
    /// Number of its intervals.
    pub intervals: u64,
    /// Parts of equal length that were resampled: single intervals, or several joined.
    pub parts: usize,
}

/// A stage or a series.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedRow {
    /// Tag of the series, or its part that names the stage.
    pub name: String,
    /// Number of events before and after.
    pub events: [u64; 2],
    /// Events per second.
    pub per_second: BeforeAfter,
    /// How often events reach thresholds, lowest threshold first.
    pub exceedance: Vec<Exceedance>,
    /// Quantiles, ns.
    pub quantiles: Vec<Quantile>,
    /// Longest durations, ns. They have no confidence interval: see `longer_ppm`.
    pub max_ns: [u64; 2],
    /// Upper bound, with 95 % confidence, on the events longer than `max_ns`, per million.
    pub longer_ppm: [f64; 2],
}

/// A number before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct BeforeAfter {
    /// Before.
    pub before: f64,
    /// After.
    pub after: f64,
    /// After minus before.
    pub difference: f64,
    /// After divided by before; absent when that is 0.
    pub ratio: Option<f64>,
    /// Lower end of the ratio's 95 % interval; absent when there is none.
    pub ratio_low: Option<f64>,
    /// Its upper end; absent when it is unbounded.
    pub ratio_high: Option<f64>,
}

/// How often events reach a threshold.
#[derive(Clone, Debug, Serialize)]
pub struct Exceedance {
    /// The threshold.
    pub threshold_ns: u64,
    /// Events at or above it.
    pub stalls: [u64; 2],
    /// The same per million events.
    pub ppm: BeforeAfter,
    /// Stalls per second.
    pub per_second: BeforeAfter,
    /// Probability of the difference by chance (p-value), the larger of those per event and per
    /// second; 1 if they differ in direction; absent when it cannot be computed.
    pub p: Option<f64>,
    /// The same, corrected for the number of tests.
    pub p_corrected: Option<f64>,
    /// How the confidence interval was computed.
    pub method: Approach,
}

/// How a confidence interval was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Approach {
    /// By resampling blocks of parts.
    Blocks,
    /// By the binomial distribution of rare events.
    Exact,
    /// Not at all: there are too few parts, or no events.
    None,
}

/// A quantile before and after.
#[derive(Clone, Debug, Serialize)]
pub struct Quantile {
    /// Which: 0.99 is p99.
    pub quantile: f64,
    /// Its values.
    pub ns: BeforeAfter,
}

/// Loads that differ by more than this factor, up or down, make a verdict weak.
const LOAD: f64 = 1.2;

impl ComparedRow {
    /// Whether a stall was seen on either side.
    pub fn has_stalls(&self) -> bool {
        self.exceedance.iter().any(|rate| rate.stalls != [0, 0])
    }

    /// Whether the loads differ so much that a verdict on them is weak. A stage that has no event
    /// on one side has no load there.
    pub fn loads_differ(&self) -> bool {
        !self.events.contains(&0)
            && self.per_second.ratio.is_none_or(|ratio| !(1.0 / LOAD..=LOAD).contains(&ratio))
    }
}

impl BeforeAfter {
    /// A change without a confidence interval.
    pub fn new(before: f64, after: f64) -> Self {
        let ratio = (before > 0.0).then(|| after / before);
        Self { before, after, difference: after - before, ratio, ratio_low: None, ratio_high: None }
    }
}

impl Exceedance {
    /// Whether the difference is significant at 5 %, corrected for the number of tests.
    pub fn is_significant(&self) -> bool {
        self.p_corrected.is_some_and(|p| p < 0.05)
    }

    /// Whether the rate is higher than before.
    pub fn is_higher(&self) -> bool {
        self.ppm.after > self.ppm.before
    }
}
