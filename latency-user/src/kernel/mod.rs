//! The running kernel: what it can do, loading the programs into it, reading their maps.
//!
//! Owns every use of aya's loader. [`types`] knows the kernel's structs and symbols, [`probes`] how
//! each stage can be probed, [`maps`] how maps and ring-buffer records are read; [`loader`] puts
//! them together and [`attached`] holds the result. Formats nothing for people.

pub mod attached;
pub mod loader;
pub mod maps;
pub mod privileges;
pub mod probes;
pub mod single_instance;
pub mod types;
