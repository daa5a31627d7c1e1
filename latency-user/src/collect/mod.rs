//! From a traced kernel to named distributions.
//!
//! Owns the tracer, its snapshots, the events of the ring transport, the sums of the ledger, the
//! conversion of stalls, and the names of queues and IRQs. Formats no output.

pub mod accounting;
pub mod clocks;
pub mod config;
pub mod context;
pub mod cost;
pub mod events;
pub mod identity;
pub mod interference;
pub mod known_row;
pub mod naming;
mod packet_watch;
pub mod samples;
pub mod slots;
pub mod snapshot;
pub mod stalls;
pub mod tracer;
