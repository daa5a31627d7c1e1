//! Maps and ring buffers as user space reads them.

pub mod mmap;
pub mod stall_decode;
