//! Aggregation of measured data: sums over intervals, and the functions to blame for stalls.
//!
//! Does no I/O, like [`crate::model`], whose types it reads and builds.

pub mod culprits;
pub(crate) mod helper_functions;
pub mod stall_time;
pub mod stall_totals;
pub mod totals;
