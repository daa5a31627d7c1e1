//! What commands share: argument values, standard output, signals, the traced command.

pub mod child;
pub mod signals;
pub mod stdout;
pub mod values;
pub mod version;

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
