//! Probes: which programs time a stage, which method this kernel allows, what it skipped of them.

pub mod bpf_stats;
pub mod hooks;
pub mod misses;
pub mod sampler;
pub mod selection;
