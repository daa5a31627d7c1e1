//! CPUs: which exist, what they spend their time on, which interrupts and softirqs they handle.

pub mod cpus;
pub mod interrupts;
pub mod softirqs;
pub mod stat;
pub mod steal;
