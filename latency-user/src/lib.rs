//! `latency-user`: finds softirq stalls in the Linux network path.
//!
//! The modules, from the lowest layer up: [`model`] defines the terms, and [`analysis`] aggregates;
//! [`kernel`], [`host`], [`file_tree`], [`collect`], [`recording`] and [`views`] read and write
//! data; [`measure`] is the measuring engine; [`compare`], [`experiment`] and [`triage`] judge;
//! [`cli`] has the helpers that [`commands`] share, and [`commands`] combine it all.

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
pub mod triage;
pub mod views;
