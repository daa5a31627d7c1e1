//! A tc program that spins for a known time on marked packets. Empty on the host.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod injector;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
