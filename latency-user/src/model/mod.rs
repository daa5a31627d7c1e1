//! What a measurement is: series, their distributions, intervals, the run and its summary; stalls
//! and what they were spent in.
//!
//! Owns no I/O: everything here can be built from a live kernel or from a file.

pub mod comparison;
pub mod cost;
pub mod diagnosis;
pub mod distribution;
pub mod duration_classes;
pub mod envelope;
pub mod experiment;
pub mod failure;
pub mod filter;
pub mod finding;
pub mod interval;
pub mod ledger;
pub mod place;
pub mod run;
pub mod series;
pub mod settings;
pub mod source;
pub mod stage;
pub mod stall;
pub mod summary;
pub mod tcp_pressure;
pub mod timeline;
