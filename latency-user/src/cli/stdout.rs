//! Standard output that may be closed by its reader: `| head` ends a run quietly.

use std::io::{self, Write};

use anyhow::{Context, Result};

/// Writes texts, and remembers when the reader has gone.
pub struct Output {
    out: Box<dyn Write + Send>,
    closed: bool,
    rows: usize,
    lines: usize,
}

impl Output {
    /// Writes to `out`, a terminal with `rows` rows; 0: not a terminal.
    pub fn new(out: Box<dyn Write + Send>, rows: usize) -> Self {
        Self { out, closed: false, rows, lines: 0 }
    }

    /// Whether the reader has gone.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes `text`, which stays on the screen.
    ///
    /// # Errors
    ///
    /// When it cannot be written, unless the reader has gone.
    pub fn write(&mut self, text: &[u8]) -> Result<()> {
        self.lines = 0;
        self.put(text)
    }

    /// Writes `text`; on a terminal it replaces the text of the previous call, if that is still
    /// on the screen.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub fn refresh(&mut self, text: &[u8]) -> Result<()> {
        if self.lines > 0 {
            self.put(format!("\x1b[{}A\x1b[J", self.lines).as_bytes())?;
        }
        self.put(text)?;
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        self.lines = if lines < self.rows { lines } else { 0 };
        Ok(())
    }

    fn put(&mut self, text: &[u8]) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        match self.out.write_all(text).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            other => other.context("write to standard output"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error() {
        let mut output = Output::new(Box::new(Gone), 0);
        output.write(b"x").unwrap();
        assert!(output.is_closed());
        output.write(b"y").unwrap();
    }
}
