//! The running kernel: detects its features, loads the programs, reads their maps.
//!
//! Owns every use of aya's loader. [`types`] has the kernel's structs and symbols, [`probes`] the
//! methods to probe each stage, [`maps`] the readers of maps and ring-buffer records. [`loader`]
//! combines them and [`attached`] is the result; [`confine`] then gives up privileges. Formats no output.

pub mod atomics;
pub mod attached;
mod bare;
pub mod confine;
mod link;
pub mod loader;
pub mod maps;
mod object;
pub mod privileges;
pub mod probes;
pub mod single_instance;
pub mod types;
