//! The commands: each puts the rooms together for one purpose. What they print goes through the
//! writers that `main` hands them.

pub mod capture;
pub mod compare;
pub mod doctor;
pub mod ending;
pub mod experiment;
pub mod merge;
pub mod output;
pub mod report;
pub mod trace;
pub mod triage;
pub mod values;

use std::io::Write;

/// Where a command's results and remarks go.
pub struct Console {
    /// Results.
    pub out: Box<dyn Write>,
    /// Warnings and progress.
    pub err: Box<dyn Write>,
    /// Rows of the terminal that `out` is, which can be redrawn; 0: it is none.
    pub rows: usize,
    /// Whether `out` may be coloured.
    pub colour: bool,
    /// Whether `err` is a terminal, on which a line can be written over.
    pub err_is_terminal: bool,
}
