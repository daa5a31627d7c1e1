//! The network stack: interfaces, namespaces, and the kernel's counters of packets and protocols.

pub mod interface_counters;
pub mod interfaces;
pub mod namespaces;
pub mod protocol_counters;
pub mod softnet;
pub mod tcp_pressure;
