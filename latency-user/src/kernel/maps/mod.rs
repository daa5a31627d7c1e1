//! Readers of maps and ring-buffer records.

pub mod mmap;
pub mod stall_decode;
