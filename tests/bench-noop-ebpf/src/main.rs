//! No-op programs: the benchmark's lower bound. Empty on the host.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod noop;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
