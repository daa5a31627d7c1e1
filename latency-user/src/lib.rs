//! `latency-user`: finds softirq stalls in the Linux network path.
//!
//! The rooms, in the order in which they may use one another:
//! [`model`] knows the words; [`kernel`], [`host`], [`collect`], [`recording`] and [`views`] bring
//! data in and out; [`compare`] and [`triage`] judge it; [`commands`] put them together; [`cli`]
//! reads the command line.

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
