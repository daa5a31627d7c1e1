//! Probes: the programs of each stage, the methods that this kernel supports, and missed runs.

pub mod bpf_stats;
pub mod hooks;
pub mod misses;
mod perf_clock;
pub mod sampler;
pub mod selection;
