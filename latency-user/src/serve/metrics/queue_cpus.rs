//! Which CPU serves a queue.

use std::collections::BTreeMap;

use latency_common::stage::Stage;

use crate::model::{interval::Interval, series::labels::Labels};

/// Queues of devices whose CPU is told, at most.
const MOST: usize = 1024;

/// The CPU of each queue that has an IRQ, by where the IRQ was handled.
#[derive(Debug, Default)]
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
