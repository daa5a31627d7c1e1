//! Readers of what the host reports about itself in `/proc`, `/sys` and over netlink.
//!
//! Owns the readers and the types that they fill. File readers take the root directory that
//! contains `proc` and `sys`: `/` for the live host, another directory for a copy. What the host
//! does not report stays `None` or empty. Nothing is inferred here, except which IRQ serves a
//! queue: that needs two sources.

pub mod cpu;
pub mod diskstats;
pub mod kernel;
pub mod net;
pub mod nic;
pub mod pressure;
pub mod process;
pub mod settings;

#[cfg(test)]
mod tests;
