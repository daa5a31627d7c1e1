//! The summary: every series of a run in numbers.

use std::collections::BTreeMap;

use latency_common::stage::Stage;
use serde::{Deserialize, Serialize};

use super::{
    cost::SelfCost,
    distribution::Distribution,
    ledger::Ledger,
    run::Run,
    series::{Location, Series, SeriesId, labels::Labels},
    stage::StageName,
    stall::{
        Stall,
        collapse::SocketTotal,
        culprit::Culprit,
        time::{CpuSteal, StallTime},
    },
    tcp_pressure::TcpPressure,
};
/// The result of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// What was measured, where, and how.
    pub run: Run,
    /// One entry for each series that recorded something.
    pub series: Vec<SeriesSummary>,
    /// Stalls by stage.
    pub stalls: Stalls,
    /// The sums that prove that nothing was lost unnoticed.
    pub ledger: Ledger,
    /// What the measurement itself cost.
    pub self_cost: SelfCost,
    /// Lines of the live output that were dropped because nobody read them in time; absent in
    /// recordings, which do not depend on a reader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_output_lines: Option<u64>,
}

/// One series in numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesSummary {
    /// Name of the stage.
    pub stage: StageName,
    /// The CPU, queue, IRQ or vector.
    #[serde(flatten)]
    pub labels: Labels,
    /// The numbers.
    #[serde(flatten)]
    pub numbers: Numbers,
}

/// A distribution in numbers. Durations are ns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Numbers {
    /// Number of events.
    pub count: u64,
    /// Sum of their durations, exact.
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
    /// Longest event, exact.
    pub max_ns: u64,
    /// Events at or above the threshold.
    pub over_threshold: u64,
    /// Events at or above the threshold, per million events.
    pub ppm: f64,
    /// Packets processed, of stage `napi_poll`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
}

impl SeriesSummary {
    /// The numbers of one series.
    pub fn new(series: &Series) -> Self {
        let mut numbers = Numbers::new(&series.distribution);
        if series.id.stage == Stage::NapiPoll {
            numbers.packets = Some(series.distribution.work);
        }
        Self { stage: series.id.stage.into(), labels: series.labels(), numbers }
    }

    /// The series; `None`: this version does not know it.
    pub fn id(&self) -> Option<SeriesId> {
        Some(SeriesId { stage: self.stage.known()?, at: self.location()? })
    }

    fn location(&self) -> Option<Location> {
        match (self.stage.known()?, self.labels.location()?) {
            // The IRQs for which no slot was left have neither number nor name.
            (Stage::Irq, Location::Cpu(cpu)) => {
                Some(Location::Irq { number: None, name: None, cpu })
            }
            (Stage::Irq, Location::OnHost { host, at }) => match *at {
                Location::Cpu(cpu) => {
                    let at = Box::new(Location::Irq { number: None, name: None, cpu });
                    Some(Location::OnHost { host, at })
                }
                at => Some(Location::OnHost { host, at: Box::new(at) }),
            },
            (_, at) => Some(at),
        }
    }
}

impl Numbers {
    /// The numbers of a distribution, without its packets.
    pub fn new(distribution: &Distribution) -> Self {
        let histogram = distribution.histogram();
        let quantile = |q| distribution.quantile(&histogram, q);
        let count = histogram.len();
        Self {
            count,
            sum_ns: distribution.sum_ns,
            min_ns: distribution.min_ns(),
            p50_ns: quantile(0.5),
            p90_ns: quantile(0.9),
            p99_ns: quantile(0.99),
            p99_9_ns: quantile(0.999),
            p99_99_ns: quantile(0.9999),
            max_ns: distribution.max_ns,
            over_threshold: distribution.over_threshold,
            ppm: ppm(distribution.over_threshold, count),
            packets: None,
        }
    }
}

/// Stalls of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stalls {
    /// Durations at or above it are stalls, ns.
    pub threshold_ns: u64,
    /// Stalls of each stage that had any, as counted by the histograms. Stalls of a queue and of
    /// its CPU overlap, so there is no sum over stages.
    pub by_stage: BTreeMap<StageName, u64>,
    /// Samples that were taken during stalls.
    #[serde(default)]
    pub samples: u64,
    /// The time of the stalls that stacks are sampled of; absent in older recordings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<StallTime>,
    /// What the hypervisor took of each CPU of which it took something, or on which a stall ended;
    /// absent if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steal: Option<Vec<CpuSteal>>,
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

/// `part` of `total` in parts per million; 0 if `total` is 0.
pub fn ppm(part: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { part as f64 / total as f64 * 1e6 }
}
