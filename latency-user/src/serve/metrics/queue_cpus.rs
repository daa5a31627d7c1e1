//! Which CPU serves a queue.

use std::collections::BTreeMap;

use latency_common::stage::Stage;

use crate::model::{interval::Interval, series::labels::Labels};

/// Queues of devices whose CPU is told, at most.
const MOST: usize = 1024;

/// The CPU of each queue that has an IRQ, by where the IRQ was handled.
#[derive(Clone, Debug, Default)]
pub(super) struct QueueCpus {
    /// IRQs in the current minute, by number and CPU.
    irqs: BTreeMap<(u32, u32), u64>,
    /// The queues polled in it, and their IRQs.
    queues: BTreeMap<Labels, u32>,
    /// In the last full minute: the CPU with most IRQs of the queue, and how many.
    pub last: BTreeMap<Labels, (u32, u64)>,
}

impl QueueCpus {
    /// Adds an interval.
    pub(super) fn add(&mut self, interval: &Interval) {
        for series in &interval.series {
            let labels = series.labels();
            match (series.id.stage, labels) {
                (Stage::Irq, Labels { irq: Some(irq), cpu: Some(cpu), .. }) => {
                    *self.irqs.entry((irq, cpu)).or_default() += series.distribution.count();
                }
                (Stage::NapiPoll, Labels { iface: iface @ Some(_), netns, queue, irq, .. }) => {
                    let queue = queue.map(|number| Labels {
                        iface,
                        netns,
                        queue: Some(number),
                        ..Labels::default()
                    });
                    if let (Some(queue), Some(irq)) = (queue, irq)
                        && self.queues.len() < MOST
                    {
                        self.queues.insert(queue, irq);
                    }
                }
                _ => {}
            }
        }
    }

    /// The current minute becomes the last one.
    pub(super) fn end_minute(&mut self) {
        let irqs = std::mem::take(&mut self.irqs);
        let most = |irq: u32| {
            let of_irq = irqs.range((irq, 0)..=(irq, u32::MAX));
            of_irq.map(|((_, cpu), count)| (*cpu, *count)).max_by_key(|(_, count)| *count)
        };
        self.last = std::mem::take(&mut self.queues)
            .into_iter()
            .filter_map(|(queue, irq)| Some((queue, most(irq)?)))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{
        distribution::Distribution,
        series::{Location, Queue, QueueId, Series, attrs::QueueAttrs},
    };

    fn times(count: u64) -> Distribution {
        Distribution { buckets: vec![(9, count)], ..Distribution::default() }
    }

    fn irq(number: u32, cpu: u32, count: u64) -> Series {
        let at = Location::Irq { number: Some(number), name: Some("eth0-rx".into()), cpu };
        Series::new(Stage::Irq, at, times(count))
    }

    fn polls(id: QueueId, irq: Option<u32>) -> Series {
        let queue = Queue::Device { iface: "eth0".into(), netns: None, id };
        let mut series = Series::new(Stage::NapiPoll, Location::Queue(queue), times(5));
        series.attrs = QueueAttrs { irq, ..QueueAttrs::default() };
        series
    }

    #[test]
    fn a_queue_is_on_the_cpu_with_most_of_its_irqs() {
        let mut cpus = QueueCpus::default();
        let second = Duration::from_secs(1);
        let queues = [polls(QueueId::Rx(0), Some(40)), polls(QueueId::Rx(1), Some(41))];
        let others = [polls(QueueId::Rx(2), None), polls(QueueId::Napi(8193), Some(40))];
        for irqs in [[irq(40, 3, 5), irq(40, 7, 6)], [irq(40, 3, 2), irq(42, 1, 9)]] {
            let series = irqs.into_iter().chain(queues.clone()).chain(others.clone()).collect();
            cpus.add(&Interval::new(Duration::ZERO, second, series));
        }
        assert!(cpus.last.is_empty());
        cpus.end_minute();
        let told: Vec<_> = cpus.last.iter().map(|(queue, cpu)| (queue.queue, *cpu)).collect();
        assert_eq!(told, [(Some(0), (3, 7))]);
        cpus.end_minute();
        assert!(cpus.last.is_empty());
    }
}
