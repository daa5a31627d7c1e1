//! What commands share: argument values, standard output, signals, the traced command.

pub mod child;
pub mod masked;
pub mod new_file;
pub mod signals;
pub mod stdout;
pub mod values;
pub mod version;

use std::io::Write;

/// Where a command's results and messages go.
pub struct Console {
    /// Results.
    pub out: Box<dyn Write>,
    /// Warnings and progress.
    pub err: Box<dyn Write>,
    /// Rows of the terminal behind `out`; 0: `out` is not a terminal and cannot be redrawn.
    pub rows: usize,
    /// Whether `out` may be coloured.
    pub colour: bool,
    /// Whether `err` is a terminal, whose lines can be overwritten.
    pub err_is_terminal: bool,
}
