//! Processes: their CPU time, cgroups and sockets, and the resources used by this process.

pub mod cgroups;
pub mod processes;
pub mod socket_owners;
pub mod usage;
