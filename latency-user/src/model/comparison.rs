//! The comparison of recordings before and after a change.

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

/// What is compared as a whole: what chance deals with one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitKind {
    /// Intervals of two recordings. What differs between recordings is no chance to them.
    Interval,
    /// Windows of an experiment.
    Window,
    /// Recordings, several a side.
    Recording,
    /// Hosts, several a side.
    Host,
}

/// Everything that was compared.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The conclusion.
    pub verdict: Verdict,
    /// Whether the conclusion is a weak one: the two loads differ much, or there are too few
    /// intervals to see how stalls cluster.
    pub weak: bool,
    /// The test that decided; absent when there was none.
    #[serde(flatten)]
    pub decision: Option<Decision>,
    /// What the units are.
    pub unit: UnitKind,
    /// Number of units before and after.
    pub units: [usize; 2],
    /// Units in all that would show a halving in 8 of 10 tries, at the variation seen; absent when
    /// it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units_for_halving: Option<usize>,
    /// Notes: differences of kernel, threshold or method, and what was left out.
    pub notes: Vec<Note>,
    /// What was recorded before the change.
    pub before: ComparedSide,
    /// What was recorded after it.
    pub after: ComparedSide,
    /// Number of tests that the conclusion is corrected for.
    pub tests: usize,
    /// Significance level of the corrected tests.
    pub level: f64,
    /// Stages, each summed over its series.
    pub stages: Vec<ComparedRow>,
    /// Single series: they describe. In logs of other programs, which have no stages, they decide.
    pub series: Vec<ComparedRow>,
}

/// The figures of the test that decided.
#[derive(Clone, Debug, Serialize)]
pub struct Decision {
    /// The stage, or the series in logs of other programs.
    pub name: String,
    /// Its rate of stalls after, divided by that before; absent if there was none before.
    pub estimate: Option<f64>,
    /// Lower end of the 95 % interval; absent when there is none.
    pub low: Option<f64>,
    /// Its upper end; absent when it is unbounded.
    pub high: Option<f64>,
    /// Probability of the difference by chance (p-value), corrected for the number of tests.
    pub p: f64,
    /// How they were computed.
    pub method: Approach,
}

/// One of the sides.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedSide {
    /// Its files.
    pub recordings: Vec<String>,
    /// Names of its hosts; empty for logs of other programs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Releases of their kernels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<String>,
    /// Time that its intervals cover, seconds.
    pub duration_s: f64,
    /// Number of its intervals.
    pub intervals: u64,
    /// Parts of equal length that were compared: single intervals, or several joined.
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
    /// Those in which the hypervisor had taken the CPU, as far as they were recorded singly. They
    /// do not decide and are in no rate.
    pub stolen: [u64; 2],
    /// The others per million events.
    pub ppm: BeforeAfter,
    /// The others per second.
    pub per_second: BeforeAfter,
    /// The rate after, divided by that before: of the sums, or as units have it on average; absent
    /// if there was none before.
    pub estimate: Option<f64>,
    /// Lower end of its 95 % interval; absent when there is none.
    pub low: Option<f64>,
    /// Its upper end; absent when it is unbounded.
    pub high: Option<f64>,
    /// Probability of the difference by chance (p-value), the larger of those per event and per
    /// second; 1 if they differ in direction; absent when it cannot be computed.
    pub p: Option<f64>,
    /// The same, corrected for the number of tests.
    pub p_corrected: Option<f64>,
    /// How the interval was computed.
    pub method: Approach,
    /// Whether this is one of the tests that the verdict rests on; others describe.
    pub decides: bool,
    /// Whether the corrected p-value is below the level.
    pub significant: bool,
}

/// How an interval was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Approach {
    /// By the variation among groups of intervals.
    Groups,
    /// By the binomial distribution of rare events.
    Exact,
    /// By regression of the units on the change.
    Regression,
    /// By the differences of hosts that are on both sides.
    Paired,
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
    /// Whether the rate is higher than before.
    pub fn is_higher(&self) -> bool {
        match self.estimate {
            Some(estimate) => estimate > 1.0,
            None => self.ppm.after > self.ppm.before,
        }
    }

    /// Stalls that count: without those of the hypervisor.
    pub fn counted(&self) -> [u64; 2] {
        [0, 1].map(|side| self.stalls[side].saturating_sub(self.stolen[side]))
    }

    /// Whether the 95 % interval lies on one side of 1.
    pub fn excludes_one(&self) -> bool {
        self.low.is_some_and(|low| low > 1.0) || self.high.is_some_and(|high| high < 1.0)
    }
}
