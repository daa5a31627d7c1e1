//! Selects the series that the user asked for.

use std::{borrow::Cow, collections::BTreeSet};

use latency_common::stage::Stage;

use super::{
    interval::Interval,
    series::{Series, labels::Labels},
    stall::batch::StallBatch,
};

/// Keeps what belongs to some interfaces.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Names of the interfaces; empty: keep everything.
    pub ifaces: Vec<String>,
    /// Hard IRQs that serve them.
    pub irqs: BTreeSet<u32>,
}

impl Filter {
    /// The part of an interval that is asked for.
    pub fn apply<'a>(&self, interval: &'a Interval) -> Cow<'a, Interval> {
        if self.ifaces.is_empty() {
            return Cow::Borrowed(interval);
        }
        let batch = &interval.batch;
        Cow::Owned(Interval {
            start: interval.start,
            duration: interval.duration,
            series: kept(&interval.series, |series| self.keeps(series)),
            steal: interval.steal.clone(),
            merged: interval.merged,
            batch: StallBatch {
                stalls: kept(&batch.stalls, |stall| self.keeps_labels(stall.stage, &stall.labels)),
                collapses: kept(&batch.collapses, |collapse| {
                    let polled = collapse.polled.as_ref();
                    polled.is_none_or(|polled| self.keeps_labels(Stage::NapiPoll, polled))
                }),
                stacks: kept(&batch.stacks, |stack| {
                    let stage = stack.stage.as_ref().and_then(|stage| stage.known());
                    stage.is_none_or(|stage| self.keeps_labels(stage, &stack.labels))
                }),
                times: kept(&batch.times, |time| {
                    let stage = time.stage.as_ref().and_then(|stage| stage.known());
                    stage.is_none_or(|stage| self.keeps_labels(stage, &time.labels))
                }),
            },
        })
    }

    /// Whether `series` is asked for.
    pub fn keeps(&self, series: &Series) -> bool {
        self.ifaces.is_empty() || self.keeps_labels(series.id.stage, &series.labels())
    }

    /// Whether data of `stage` at a location is asked for: everything that is kept per CPU, the
    /// queues of the interfaces, and their IRQs. Backlogs are kept, because they carry the
    /// packets of loopback and RPS.
    fn keeps_labels(&self, stage: Stage, labels: &Labels) -> bool {
        if self.ifaces.is_empty() {
            return true;
        }
        if stage == Stage::Irq {
            return labels.irq.is_none_or(|number| self.irqs.contains(&number));
        }
        match &labels.iface {
            Some(iface) => labels.netns.is_none() && self.ifaces.contains(iface),
            None => true,
        }
    }
}

fn kept<T: Clone>(all: &[T], keeps: impl Fn(&T) -> bool) -> Vec<T> {
    all.iter().filter(|entry| keeps(entry)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::stall::{
        batch::{LocatedStack, Stack},
        collapse::{Collapse, CollapsedQueue, Socket, SocketState},
    };

    fn collapse(iface: Option<&str>) -> Collapse {
        let address = "127.0.0.1:80".parse().unwrap();
        let polled = iface.map(|iface| Labels { iface: Some(iface.into()), ..Labels::default() });
        Collapse {
            at: String::new(),
            end_ns: 0,
            duration_ns: 0,
            cpu: 0,
            socket: Socket { local: address, remote: address, netns: 0, inode: 0 },
            owner: None,
            queue: CollapsedQueue::InOrder,
            before: SocketState::default(),
            rmem_alloc_after: 0,
            polled,
        }
    }

    #[test]
    fn other_interfaces_are_left_out() {
        let stack = |stage: Stage, iface: &str| LocatedStack {
            stack: Stack { frames: vec![iface.into()], count: 1 },
            stage: Some(stage.into()),
            labels: Labels { iface: Some(iface.into()), ..Labels::default() },
        };
        let filter = Filter { ifaces: vec!["eth0".into()], ..Filter::default() };
        let interval = Interval {
            start: Duration::ZERO,
            duration: Duration::ZERO,
            series: Vec::new(),
            batch: StallBatch {
                stalls: Vec::new(),
                collapses: [Some("eth1"), None, Some("eth0")].map(collapse).to_vec(),
                stacks: ["eth1", "eth0"].map(|iface| stack(Stage::NapiPoll, iface)).to_vec(),
                times: Vec::new(),
            },
            steal: None,
            merged: None,
        };
        let kept = filter.apply(&interval);
        assert_eq!(kept.batch.collapses, [None, Some("eth0")].map(collapse));
        assert_eq!(kept.batch.stacks, [stack(Stage::NapiPoll, "eth0")]);
        assert_eq!(*Filter::default().apply(&interval), interval);
    }
}
