//! Loads of the benchmark: steady, pinned, and divided into slices of known duration, so that
//! slices with and without a tracer can be compared.

pub mod batches;
pub mod frames;
pub mod ping;
pub mod slices;
pub mod udp;

use std::thread;

use anyhow::Result;

use crate::load;

/// Pins the calling thread to the machine's last CPU: the first one often handles device IRQs.
fn pin_to_last() -> Result<()> {
    load::pin_to(cpus() - 1)
}

fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
