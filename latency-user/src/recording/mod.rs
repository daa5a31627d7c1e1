//! Recordings: runs on disk, as HdrHistogram interval logs.
//!
//! Owns the form of the file ([`format`]), its writing ([`writer`]) and reading ([`reader`]), what
//! is loaded of one ([`loaded`], cut into [`parts`]), and the sum of many ([`merge`]).

pub mod format;
pub mod histogram;
mod lines;
pub mod loaded;
pub mod merge;
pub mod parts;
pub mod reader;
pub mod writer;
