//! From a traced kernel to named distributions.
//!
//! Owns the tracer, its snapshots, the events of the ring transport, the ledger's sums, the
//! description of stalls, and the names of queues and IRQs. Formats nothing.

pub mod accounting;
pub mod config;
pub mod context;
pub mod cost;
pub mod events;
pub mod identity;
pub mod interference;
pub mod naming;
pub mod samples;
pub mod slots;
pub mod snapshot;
pub mod stalls;
pub mod tracer;
