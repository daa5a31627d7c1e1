//! Recordings: runs on disk, as HdrHistogram interval logs.
//!
//! Owns the file format ([`mod@format`]), writing ([`writer`]) and reading ([`reader`]), recordings in
//! memory ([`loaded`], cut into [`parts`]), and merging ([`merge`]).

mod deflated;
pub mod encoder;
pub mod format;
pub mod histogram;
pub mod join;
mod lines;
pub mod loaded;
pub mod merge;
pub mod output;
pub mod parts;
pub mod reader;
pub mod writer;
