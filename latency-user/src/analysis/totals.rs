//! Totals: everything that was measured, summed over intervals. Only [`Totals::summary`] builds
//! summaries.

use std::{collections::BTreeMap, time::Duration};

use latency_common::stage::Stage;

use super::stall_totals::StallTotals;
use crate::model::{
    cost::SelfCost,
    distribution::Distribution,
    interval::Interval,
    ledger::Ledger,
    run::Run,
    series::{Series, SeriesId, SeriesKey, attrs::QueueAttrs},
    stall::{Stall, time::CpuSteal},
    summary::{SeriesSummary, Stalls, Summary},
    tcp_pressure::{self, TcpPressure},
};

/// Stalls that a summary lists.
const LISTED: usize = 20;

/// Sums over the intervals of one run, or of several.
#[derive(Clone, Debug)]
pub struct Totals<K: Ord = SeriesId> {
    /// Number of intervals.
    pub intervals: u64,
    /// End of the last interval, counted from the start.
    pub length: Duration,
    /// What each series recorded.
    pub series: BTreeMap<K, SeriesTotal>,
    /// Totals of the stalls.
    pub stalls: StallTotals,
    /// What the hypervisor took of each CPU, by host and CPU; `None`: not known of every interval.
    pub steal: Option<BTreeMap<(Option<String>, u32), CpuSteal>>,
    /// What the end of the run reported; `None`: the run did not end.
    pub end: Option<RunEnd>,
}

/// One series, summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesTotal {
    /// What else is known of its queue.
    pub attrs: QueueAttrs,
    /// Its durations.
    pub distribution: Distribution,
}

/// What the end of a run reports.
#[derive(Clone, Debug, Default)]
pub struct RunEnd {
    /// The sums that prove that nothing was lost unnoticed.
    pub ledger: Ledger,
    /// What the measurement itself cost.
    pub self_cost: SelfCost,
    /// What TCP did to stay inside its receive buffers, by network namespace.
    pub tcp: Vec<TcpPressure>,
}

impl<K: Ord> Default for Totals<K> {
    fn default() -> Self {
        Self {
            intervals: 0,
            length: Duration::ZERO,
            series: BTreeMap::new(),
            stalls: StallTotals::default(),
            steal: Some(BTreeMap::new()),
            end: None,
        }
    }
}

impl<K: Ord + Clone> Totals<K> {
    /// Totals that keep every distinct stack, for recordings.
    pub fn with_all_stacks() -> Self {
        Self { stalls: StallTotals::with_all_stacks(), ..Self::default() }
    }

    /// Adds an interval.
    pub fn add(&mut self, interval: &Interval<K>) {
        self.intervals += 1;
        self.length = self.length.max(interval.end());
        for series in &interval.series {
            self.add_series(&series.id, series.attrs, &series.distribution);
        }
        self.stalls.add(&interval.batch);
        self.add_steal(interval.steal.as_deref());
    }

    fn add_steal(&mut self, steal: Option<&[CpuSteal]>) {
        let Some(steal) = steal else {
            self.steal = None;
            return;
        };
        let Some(sums) = &mut self.steal else { return };
        for cpu in steal {
            let sum = sums.entry((cpu.host.clone(), cpu.cpu)).or_insert_with(|| CpuSteal {
                host: cpu.host.clone(),
                cpu: cpu.cpu,
                ..CpuSteal::default()
            });
            sum.add(cpu);
        }
    }

    /// Sets the host of CPUs that have none.
    pub fn set_host_of_steal(&mut self, host: &str) {
        let Some(steal) = self.steal.take() else { return };
        let on_host = steal.into_iter().map(|((known, cpu), steal)| {
            let host = Some(known.unwrap_or_else(|| host.to_owned()));
            ((host.clone(), cpu), CpuSteal { host, ..steal })
        });
        self.steal = Some(on_host.collect());
    }

    /// What the hypervisor took of each CPU, most first; `None`: not known.
    pub fn steal(&self) -> Option<Vec<CpuSteal>> {
        let mut steal: Vec<CpuSteal> = self.steal.as_ref()?.values().cloned().collect();
        steal.sort_by_key(|cpu| std::cmp::Reverse(cpu.steal_ns));
        Some(steal)
    }

    /// Adds what one series recorded.
    pub fn add_series(&mut self, id: &K, attrs: QueueAttrs, distribution: &Distribution) {
        let total = match self.series.get_mut(id) {
            Some(total) => total,
            None => self.series.entry(id.clone()).or_default(),
        };
        total.attrs.add(attrs);
        total.distribution.add(distribution);
    }

    /// Adds the totals of another run.
    pub fn join(&mut self, other: Self) {
        self.intervals += other.intervals;
        self.length = self.length.max(other.length);
        for (id, total) in &other.series {
            self.add_series(id, total.attrs, &total.distribution);
        }
        self.stalls.join(other.stalls);
        let steal: Option<Vec<CpuSteal>> = other.steal.map(|steal| steal.into_values().collect());
        self.add_steal(steal.as_deref());
        match (&mut self.end, other.end) {
            (Some(end), Some(other)) => end.add(other),
            (None, other) => self.end = other,
            (Some(_), None) => {}
        }
    }

    /// The result of the run, with the numbers of `series`. The ledger of a run that did not end is
    /// unknown and left empty.
    pub fn summary(&self, run: Run, series: &[Series]) -> Summary {
        let series: Vec<SeriesSummary> = series.iter().map(SeriesSummary::new).collect();
        let mut by_stage = BTreeMap::new();
        for row in series.iter().filter(|row| row.numbers.over_threshold > 0) {
            *by_stage.entry(row.stage.clone()).or_default() += row.numbers.over_threshold;
        }
        let worst: Vec<Stall> = self.stalls.longest().iter().take(LISTED).cloned().collect();
        let end = self.end.clone().unwrap_or_default();
        Summary {
            stalls: Stalls {
                threshold_ns: run.threshold_ns,
                by_stage,
                samples: self.stalls.samples(),
                time: Some(self.stalls.time()),
                steal: self.steal(),
                culprits: self.stalls.culprits(),
                worst,
                sockets: self.stalls.sockets(),
                tcp: end.tcp,
            },
            run,
            series,
            ledger: end.ledger,
            self_cost: end.self_cost,
            dropped_output_lines: None,
        }
    }
}

impl Totals {
    /// The series in their order.
    pub fn series(&self) -> Vec<Series> {
        let series = self.series.iter().map(|(id, total)| Series {
            id: id.clone(),
            attrs: total.attrs,
            distribution: total.distribution.clone(),
        });
        series.collect()
    }

    /// All runs of `net_rx_action`.
    pub fn net_rx(&self) -> Distribution {
        let mut sum = Distribution::default();
        let series = self.series.iter().filter(|(id, _)| id.stage == Stage::NetRx);
        series.for_each(|(_, total)| sum.add(&total.distribution));
        sum
    }
}

impl Totals<SeriesKey> {
    /// The series of this program, in their order.
    pub fn known_series(&self) -> Vec<Series> {
        let known = self.series.iter().filter_map(|(key, total)| {
            let id = key.known()?.clone();
            let distribution = total.distribution.clone();
            Some(Series { id, attrs: total.attrs, distribution })
        });
        known.collect()
    }
}

impl RunEnd {
    /// Adds the end of another run.
    pub fn add(&mut self, other: Self) {
        self.ledger.add(other.ledger);
        self.self_cost.add(&other.self_cost);
        self.tcp.clear();
    }

    /// Adds what the time directly after this one reported, of the same run.
    pub fn continue_with(&mut self, next: Self) {
        self.ledger.continue_with(next.ledger);
        self.tcp = tcp_pressure::sums(std::mem::take(&mut self.tcp), &next.tcp);
        self.self_cost = next.self_cost;
    }
}
