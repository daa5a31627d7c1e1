//! Recordings: runs on disk, as HdrHistogram interval logs.
//!
//! Owns the form of the file ([`format`]) and its writing ([`writer`]).

pub mod format;
pub mod histogram;
mod lines;
pub mod reader;
pub mod writer;
