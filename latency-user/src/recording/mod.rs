//! Recordings: runs on disk, as HdrHistogram interval logs.
//!
//! Owns the form of the file ([`format`]), its writing ([`writer`]) and reading ([`reader`]), and
//! the sums over one ([`loaded`]) or many ([`merge`]).

pub mod format;
pub mod histogram;
mod lines;
pub mod loaded;
pub mod merge;
pub mod reader;
pub mod writer;
