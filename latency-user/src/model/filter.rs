//! Which series a reader asked for.

use std::collections::BTreeSet;

use latency_common::stage::Stage;

use super::{place::Place, series::Series};

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
