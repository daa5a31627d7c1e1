//! Views: the output of a measurement for people and programs.
//!
//! A view turns structures of [`crate::model`] into text and writes it to a given writer. It reads
//! no map and no file, and does not know whether it writes to a terminal.

pub mod comparison;
pub mod cost;
pub mod csv;
pub mod doctor;
mod duration_classes;
pub mod experiment;
pub mod folded;
pub mod format;
pub mod hgrm;
pub mod html;
pub mod json;
pub mod progress;
mod stall_time;
pub mod table;
pub mod triage;

#[cfg(test)]
mod fixtures;
mod text;

pub use self::text::printable;

/// Appearance of a view for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether escape sequences for colour may be written.
    pub colour: bool,
    /// Columns of the terminal. More than [`Style::MAX_WIDTH`] are not used.
    pub width: usize,
}

impl Style {
    /// Maximum width, so that a view can be pasted into a mail or a ticket.
    pub const MAX_WIDTH: usize = 80;

    /// Minimum width of paragraphs, however narrow the terminal claims to be.
    const MIN_WIDTH: usize = 40;

    fn columns(self) -> usize {
        self.width.clamp(Self::MIN_WIDTH, Self::MAX_WIDTH)
    }

    fn alarm(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn plain(self, text: &str) -> String {
        text.to_owned()
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
