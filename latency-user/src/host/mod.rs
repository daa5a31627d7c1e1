//! What the host says of itself: `/proc`, `/sys` and netlink, read and parsed.
//!
//! Owns the readers and the types that they fill. Readers of files take the root under which
//! `proc` and `sys` lie: `/` for the live host, another directory for a copy of one. What the host
//! does not report stays `None` or empty; nothing is concluded here beyond the one question that
//! needs two sources: which IRQ serves a queue.

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
