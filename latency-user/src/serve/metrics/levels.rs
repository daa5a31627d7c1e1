//! How detailed the labels of metrics are, and the limit of their number.

use std::collections::BTreeMap;

use latency_common::stage::Stage;
use serde::Deserialize;

use crate::model::{distribution::Distribution, interval::Interval, series::labels::Labels};

/// From least to most detailed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// One series a stage.
    Host,
    /// One a network device.
    Device,
    /// One a queue and an IRQ.
    Queue,
    /// One a queue, and an IRQ or CPU on each CPU.
    Cpu,
}

/// The durations of all stages since the start, at one level.
#[derive(Clone, Debug)]
pub struct Leveled {
    level: Level,
    most: usize,
    series: BTreeMap<(Stage, Labels), Durations>,
}

/// One series since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// All durations.
    pub all: Distribution,
    /// Total time of the stalls among them that were reported one by one, ns.
    pub stalled_ns: u64,
}

impl Level {
    /// Its name, as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Device => "device",
            Self::Queue => "queue",
            Self::Cpu => "cpu",
        }
    }

    fn lower(self) -> Self {
        match self {
            Self::Cpu => Self::Queue,
            Self::Queue => Self::Device,
            Self::Device | Self::Host => Self::Host,
        }
    }

    /// What is left of labels at this level.
    fn keep(self, labels: &Labels) -> Labels {
        let is_queue = labels.iface.is_some() || labels.queue_kind.is_some();
        let kind = labels.queue_kind.clone();
        // The id of a queue that has no number is too short-lived for a label below its queue.
        let kind_of_device = kind.clone().filter(|_| labels.napi_id.is_none());
        let base = Labels { vector: labels.vector.clone(), ..Labels::default() };
        let of_device = Labels {
            iface: labels.iface.clone(),
            netns: labels.netns,
            queue_kind: kind_of_device,
            ..base.clone()
        };
        let of_queue = Labels {
            queue: labels.queue,
            queue_kind: kind,
            irq: labels.irq.filter(|_| !is_queue),
            irq_name: labels.irq_name.clone(),
            ..of_device.clone()
        };
        match self {
            Self::Host => base,
            Self::Device => of_device,
            Self::Queue => of_queue,
            Self::Cpu => Labels { cpu: labels.cpu, ..of_queue },
        }
    }
}

impl Durations {
    fn add(&mut self, other: &Self) {
        self.all.add(&other.all);
        self.stalled_ns += other.stalled_ns;
    }
}

impl Leveled {
    /// None so far; at most `most` series.
    pub fn new(level: Level, most: usize) -> Self {
        Self { level, most, series: BTreeMap::new() }
    }

    /// The level that they have now.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Adds what an interval recorded. Returns the new level if there were too many series at the
    /// one before: the counts go on there, and nothing is lost.
    pub fn add(&mut self, interval: &Interval) -> Option<Level> {
        for series in &interval.series {
            let labels = self.level.keep(&series.labels());
            let sums = self.series.entry((series.id.stage, labels)).or_default();
            sums.all.add(&series.distribution);
        }
        for stall in &interval.batch.stalls {
            let on_any_cpu = stall.labels.queue.is_some() || stall.labels.napi_id.is_some();
            let cpu = (!on_any_cpu).then_some(stall.cpu);
            let labels = self.level.keep(&Labels { cpu, ..stall.labels.clone() });
            self.series.entry((stall.stage, labels)).or_default().stalled_ns += stall.duration_ns;
        }
        let before = self.level;
        while self.series.len() > self.most && self.level > Level::Host {
            self.level = self.level.lower();
            for ((stage, labels), durations) in std::mem::take(&mut self.series) {
                let labels = self.level.keep(&labels);
                self.series.entry((stage, labels)).or_default().add(&durations);
            }
        }
        (self.level != before).then_some(self.level)
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The series of a stage.
    pub fn of(&self, stage: Stage) -> impl Iterator<Item = (&Labels, &Durations)> {
        let of_stage = self.series.iter().filter(move |((of, _), _)| *of == stage);
        of_stage.map(|((_, labels), durations)| (labels, durations))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::model::series::{Location, Queue, QueueId, Series};

    fn interval(series: &[Series]) -> Interval {
        Interval::new(Duration::ZERO, Duration::from_secs(1), series.to_vec())
    }

    /// A host with these CPUs, and queues of one device, each with an IRQ on one of the CPUs.
    fn host(cpus: u32, queues: u32) -> Vec<Series> {
        let mut durations = Distribution::default();
        durations.record(2_000_000, 1_000_000, 0);
        durations.record(700, 1_000_000, 0);
        let of = |stage, at| Series::new(stage, at, durations.clone());
        let on_cpus = (0..cpus).flat_map(|cpu| {
            let queue = Queue::Backlog { cpu };
            let stages = [Stage::NetRx, Stage::RxWait, Stage::TcpCollapse];
            let timed = stages.map(|stage| of(stage, Location::Cpu(cpu)));
            timed.into_iter().chain([of(Stage::NapiPoll, Location::Queue(queue))])
        });
        let of_queues = (0..queues).flat_map(|queue| {
            let device = "eth0".to_owned();
            let id = QueueId::Rx(queue);
            let polled = Queue::Device { iface: device, netns: None, id };
            let irq = Location::Irq {
                number: Some(40 + queue),
                name: Some(format!("eth0-{queue}")),
                cpu: queue % cpus,
            };
            [of(Stage::NapiPoll, Location::Queue(polled)), of(Stage::Irq, irq)]
        });
        on_cpus.chain(of_queues).collect()
    }

    fn sum(durations: &Leveled) -> u64 {
        Stage::ALL.iter().flat_map(|stage| durations.of(*stage)).map(|(_, d)| d.all.count()).sum()
    }

    #[test]
    fn levels_have_fewer_and_fewer_series_of_the_same_sum() {
        let host = host(8, 4);
        let mut numbers = Vec::new();
        for level in [Level::Cpu, Level::Queue, Level::Device, Level::Host] {
            let mut durations = Leveled::new(level, usize::MAX);
            assert_eq!(durations.add(&interval(&host)), None);
            assert_eq!(sum(&durations), 2 * host.len() as u64);
            numbers.push(durations.len());
        }
        // At level queue: 3 stages, the backlog, 4 queues, 4 IRQs.
        assert_eq!(numbers, [8 * 4 + 2 * 4, 3 + 1 + 4 + 4, 3 + 2 + 1, 5]);
    }

    #[test]
    fn too_many_series_lower_the_level_and_lose_nothing() {
        let host = host(8, 4);
        let mut durations = Leveled::new(Level::Cpu, 12);
        assert_eq!(durations.add(&interval(&host[..10])), None);
        assert_eq!(durations.add(&interval(&host[10..])), Some(Level::Queue));
        let mut direct = Leveled::new(Level::Queue, usize::MAX);
        direct.add(&interval(&host));
        assert_eq!(durations.series, direct.series);
        // As on a host where containers come and go.
        let mut durations = Leveled::new(Level::Device, 20);
        for number in 0..100 {
            let id = QueueId::Napi(8193 + number);
            let queue = Queue::Device { iface: format!("veth{number}"), netns: None, id };
            let polls = Distribution { buckets: vec![(9, 1)], ..Distribution::default() };
            let series = Series::new(Stage::NapiPoll, Location::Queue(queue), polls);
            durations.add(&interval(&[series]));
        }
        assert_eq!((durations.level(), durations.len(), sum(&durations)), (Level::Host, 1, 100));
    }
}
