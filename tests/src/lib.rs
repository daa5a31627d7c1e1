//! Helpers for tests against real kernels: private network namespaces, known loads, and the
//! kernel's own counters to compare with.
//!
//! Nothing here touches the host's network: every namespace is created by the thread that uses it,
//! has no name, and is freed with that thread, however it ends.

pub mod axe;
pub mod bench_load;
pub mod counters;
pub mod cpu_time;
pub mod frames;
pub mod fuzz;
pub mod in_process;
pub mod injector;
pub mod javascript;
pub mod load;
pub mod namespace;
pub mod proxy;
pub mod python;
pub mod release;
pub mod simulated;
pub mod tool;
pub mod veth;
