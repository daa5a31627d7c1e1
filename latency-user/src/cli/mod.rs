//! What commands share: argument values, standard output, signals, the traced command.

pub mod child;
pub mod masked;
pub mod new_file;
pub mod signals;
pub mod stdout;
pub mod unblocked;
pub mod values;
pub mod version;
#[cfg(test)]
pub mod written_defaults;

use std::io::{self, Write};

use self::unblocked::Unblocked;

/// Where a command's results and messages go.
pub struct Console {
    /// Results.
    pub out: Box<dyn Write + Send>,
    /// Warnings and progress.
    pub err: Box<dyn Write + Send>,
    /// Rows of the terminal behind `out`; 0: `out` is not a terminal and cannot be redrawn.
    pub rows: usize,
    /// Whether `out` may be coloured.
    pub colour: bool,
    /// Whether `err` is a terminal, whose lines can be overwritten.
    pub err_is_terminal: bool,
}

impl Console {
    /// From now on a reader of `out` that does not read stops nothing. Returns the writer behind.
    pub fn unblock(&mut self) -> Unblocked {
        let out = Unblocked::new(std::mem::replace(&mut self.out, Box::new(io::sink())));
        self.out = Box::new(out.clone());
        out
    }
}
