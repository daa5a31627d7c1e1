//! Processes: their CPU time, cgroups and sockets, and what this process itself has used.

pub mod cgroups;
pub mod processes;
pub mod socket_owners;
pub mod usage;
