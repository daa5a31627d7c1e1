//! What the host says of itself: `/proc`, `/sys` and netlink, read and parsed.
//!
//! Owns the readers and the types that they fill. Readers of files take the root under which
//! `proc` and `sys` lie: `/` for the live host, another folder for a copy of one. What the host
//! does not tell stays `None` or empty; nothing is concluded here beyond the one question that
//! needs two sources: which IRQ serves a queue.

pub mod cgroups;
pub mod cpus;
pub mod diskstats;
pub mod ethtool;
pub mod ethtool_ioctl;
pub mod interface_counters;
pub mod interfaces;
pub mod interrupts;
pub mod kernel;
pub mod namespaces;
pub mod netdev;
pub mod nic;
pub mod nic_setting;
pub mod pressure;
pub mod processes;
pub mod protocol_counters;
pub mod queue_irqs;
pub mod settings;
pub mod socket_owners;
pub mod softirqs;
pub mod softnet;
pub mod stat;
pub mod tcp_pressure;
pub mod tree;
pub mod usage;

#[cfg(test)]
mod fuzz;
