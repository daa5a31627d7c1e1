//! The running kernel: what it can do, loading the programs into it, reading their maps.
//!
//! Owns every use of aya's loader. Formats nothing for people.

pub mod addresses;
pub mod attached;
pub mod btf;
#[cfg(test)]
mod btf_sample;
pub mod hooks;
pub mod instance;
pub mod kallsyms;
pub mod loader;
pub mod mapped;
pub mod misses;
pub mod offsets;
pub mod plan;
pub mod privileges;
pub mod records;
pub mod sampler;
pub mod statistics;
pub mod symbols;
