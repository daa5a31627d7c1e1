//! What measured data adds up to: sums over intervals, and the functions to blame for stalls.
//!
//! Owns no I/O, like [`crate::model`], whose types it reads and makes.

pub mod culprits;
mod helper_functions;
pub mod stall_totals;
pub mod totals;
