//! The data model of a measurement: series, their distributions, intervals, the run and its
//! summary; stalls and where their time was spent; notes, failures and exit statuses.
//!
//! Does no I/O: everything here can be built from a live kernel or from a file.

pub mod comparison;
pub mod cost;
pub mod diagnosis;
pub mod distribution;
pub mod duration_classes;
pub mod exit;
pub mod experiment;
pub mod failure;
pub mod filter;
pub mod finding;
pub mod hidden_characters;
pub mod interval;
pub mod ledger;
pub mod method;
pub mod note;
pub mod remedy;
pub mod run;
pub mod schema;
pub mod series;
pub mod settings;
pub mod stage;
pub mod stall;
pub mod summary;
pub mod tcp_pressure;
pub mod timeline;
pub mod unit;
