//! `latency-user`: finds softirq stalls in the Linux network path.
//!
//! The modules in the order of their layers: each uses only modules before it, which
//! `cargo xtask layers` checks. Each one's documentation says what it owns.
//!
//! - [`model`]
//! - [`analysis`]
//! - [`file_tree`]
//! - [`host`]
//! - [`kernel`]
//! - [`recording`]
//! - [`collect`]
//! - [`measure`]
//! - [`compare`]
//! - [`experiment`]
//! - [`triage`]
//! - [`views`]
//! - [`serve`]
//! - [`cli`]
//! - [`commands`]

pub mod analysis;
pub mod cli;
pub mod collect;
pub mod commands;
pub mod compare;
pub mod experiment;
pub mod file_tree;
pub mod host;
pub mod kernel;
pub mod measure;
pub mod model;
pub mod recording;
pub mod serve;
pub mod triage;
pub mod views;
