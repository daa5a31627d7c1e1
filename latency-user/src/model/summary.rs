//! The summary: every series of a run in numbers.

use std::{borrow::Cow, collections::BTreeMap};

use latency_common::stage::Stage;
use serde::{Deserialize, Serialize};

use super::{
    cost::SelfCost,
    distribution::Distribution,
    ledger::Ledger,
    place::Place,
    run::Run,
    series::Series,
    stall::{Stall, collapse::SocketTotal},
    tcp_pressure::TcpPressure,
};
use crate::analysis::{culprits::Culprit, stall_totals::StallTotals};

/// Version of the JSON that is made from these structures.
pub const SCHEMA_VERSION: u32 = 1;

/// The result of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// What was measured, where, and how.
    pub run: Run,
    /// One entry for each series that recorded something.
    pub series: Vec<SeriesSummary>,
    /// Stalls by stage.
    pub stalls: Stalls,
    /// The books.
    pub ledger: Ledger,
    /// What the measurement itself took.
    pub self_cost: SelfCost,
}

/// One series in numbers. Durations are ns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SeriesSummary {
    /// Name of the stage.
    pub stage: Cow<'static, str>,
    /// The CPU, queue, IRQ or vector.
    #[serde(flatten)]
    pub place: Place,
    /// Number of intervals.
    pub count: u64,
    /// Their sum, exact.
    pub sum_ns: u64,
    /// Lower end of the lowest bucket.
    pub min_ns: u64,
    /// Median.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p99_9_ns: u64,
    /// 99.99th percentile.
    pub p99_99_ns: u64,
    /// Largest interval, exact.
    pub max_ns: u64,
    /// Intervals at or above the threshold.
    pub over_threshold: u64,
    /// Intervals at or above the threshold, of a million.
    pub ppm: f64,
    /// Packets processed, of stage `napi_poll`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
}

impl SeriesSummary {
    /// The numbers of one series.
    pub fn new(series: &Series, distribution: &Distribution) -> Self {
        let mut summary = Self {
            stage: series.stage.name().into(),
            place: Place::from(&series.owner),
            packets: (series.stage == Stage::NapiPoll).then_some(distribution.work),
            ..Self::default()
        };
        summary.set_numbers(distribution);
        summary
    }

    /// Fills in everything that does not name the series.
    pub fn set_numbers(&mut self, distribution: &Distribution) {
        let histogram = distribution.histogram();
        // A quantile is the upper end of its bucket, which may lie above the largest duration.
        let quantile = |q| histogram.value_at_quantile(q).min(distribution.max_ns);
        self.count = histogram.len();
        self.sum_ns = distribution.sum_ns;
        self.min_ns = distribution.min_ns();
        self.p50_ns = quantile(0.5);
        self.p90_ns = quantile(0.9);
        self.p99_ns = quantile(0.99);
        self.p99_9_ns = quantile(0.999);
        self.p99_99_ns = quantile(0.9999);
        self.max_ns = distribution.max_ns;
        self.over_threshold = distribution.over_threshold;
        self.ppm = ppm(distribution.over_threshold, self.count);
    }
}

/// Stalls of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stalls {
    /// Durations at or above it are stalls, ns.
    pub threshold_ns: u64,
    /// Stalls of each stage that had any, by the histograms; the parts of a queue and of its CPU
    /// overlap, so there is no sum over stages.
    pub by_stage: BTreeMap<Cow<'static, str>, u64>,
    /// Samples that were taken during stalls.
    #[serde(default)]
    pub samples: u64,
    /// The functions that stalls were spent in, worst first.
    #[serde(default)]
    pub culprits: Vec<Culprit>,
    /// The longest stalls, longest first.
    #[serde(default)]
    pub worst: Vec<Stall>,
    /// The sockets whose collapses took the most time, worst first.
    #[serde(default)]
    pub sockets: Vec<SocketTotal>,
    /// What TCP did to stay inside its receive buffers, by network namespace.
    #[serde(default)]
    pub tcp: Vec<TcpPressure>,
}

impl Stalls {
    /// Puts together what the histograms count and what records tell.
    pub fn new(
        threshold_ns: u64,
        series: &[SeriesSummary],
        totals: &StallTotals,
        tcp: Vec<TcpPressure>,
    ) -> Self {
        let mut by_stage = BTreeMap::new();
        for one in series.iter().filter(|one| one.over_threshold > 0) {
            *by_stage.entry(one.stage.clone()).or_default() += one.over_threshold;
        }
        Self {
            threshold_ns,
            by_stage,
            samples: totals.samples(),
            culprits: totals.culprits(),
            worst: totals.worst().to_vec(),
            sockets: totals.sockets(),
            tcp,
        }
    }
}

/// `part` of `whole` in parts per million; 0 of nothing.
pub fn ppm(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 1e6 }
}
