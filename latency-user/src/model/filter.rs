//! Which series a reader asked for.

use std::collections::BTreeSet;

use super::series::{Owner, Series};

/// Keeps what concerns some interfaces.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Names of the interfaces; empty: keep everything.
    pub ifaces: Vec<String>,
    /// Hard IRQs that serve them.
    pub irqs: BTreeSet<u32>,
}

impl Filter {
    /// Whether `series` is asked for: everything that is kept per CPU, the queues of the
    /// interfaces, and their IRQs. The backlogs stay: they carry what loopback and RPS bring.
    pub fn keeps(&self, series: &Series) -> bool {
        if self.ifaces.is_empty() {
            return true;
        }
        match &series.owner {
            Owner::Cpu(_) | Owner::Vector { .. } | Owner::OnHost { .. } => true,
            Owner::Irq { number, .. } => number.is_none_or(|number| self.irqs.contains(&number)),
            Owner::Queue(queue) => match queue.iface() {
                Some(iface) => {
                    queue.netns().is_none() && self.ifaces.iter().any(|name| name == iface)
                }
                None => true,
            },
        }
    }
}
