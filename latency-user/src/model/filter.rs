//! Which series a reader asked for.

use std::collections::BTreeSet;

use latency_common::stage::Stage;

use super::{interval::Interval, place::Place, series::Series};

/// Keeps what concerns some interfaces.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Names of the interfaces; empty: keep everything.
    pub ifaces: Vec<String>,
    /// Hard IRQs that serve them.
    pub irqs: BTreeSet<u32>,
}

impl Filter {
    /// Whether `series` is asked for.
    pub fn keeps(&self, series: &Series) -> bool {
        self.keeps_place(series.stage, &Place::from(&series.owner))
    }

    /// Leaves what is asked for of an interval. Stacks are not told apart any more: they were
    /// chosen before.
    pub fn apply(&self, interval: &mut Interval) {
        interval.series.retain(|(series, _)| self.keeps(series));
        interval.stalls.retain(|stall| self.keeps_place(stall.stage, &stall.place));
        interval.collapses.retain(|collapse| {
            let polled = collapse.polled.as_ref();
            polled.is_none_or(|polled| self.keeps_place(Stage::NapiPoll, polled))
        });
    }

    /// Whether what a stage did at a place is asked for: everything that is kept per CPU, the
    /// queues of the interfaces, and their IRQs. The backlogs stay: they carry what loopback and
    /// RPS bring.
    pub fn keeps_place(&self, stage: Stage, place: &Place) -> bool {
        if self.ifaces.is_empty() {
            return true;
        }
        if stage == Stage::Irq {
            return place.irq.is_none_or(|number| self.irqs.contains(&number));
        }
        match &place.iface {
            Some(iface) => place.netns.is_none() && self.ifaces.contains(iface),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::model::stall::collapse::{Collapse, CollapsedQueue, Socket, SocketState};

    fn collapse(iface: Option<&str>) -> Collapse {
        let address = "127.0.0.1:80".parse().unwrap();
        let polled = iface.map(|iface| Place { iface: Some(iface.into()), ..Place::default() });
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
    fn collapses_of_other_interfaces_are_left_out() {
        let filter = Filter { ifaces: vec!["eth0".into()], ..Filter::default() };
        let mut interval = Interval {
            began_at: UNIX_EPOCH,
            duration: Duration::ZERO,
            series: Vec::new(),
            stalls: Vec::new(),
            collapses: [Some("eth1"), None, Some("eth0")].map(collapse).to_vec(),
            stacks: Vec::new(),
        };
        filter.apply(&mut interval);
        assert_eq!(interval.collapses, [None, Some("eth0")].map(collapse));
    }
}
