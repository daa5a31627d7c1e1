//! Progress of long-running work: one terminal line, rewritten in place.

use std::io;

use super::Style;

/// Columns of the bar.
const BAR: u64 = 30;

/// Replaces the previous line with how much of `total` is done.
///
/// # Errors
///
/// What `out` fails with.
pub fn line(done: u64, total: u64, noun: &str, out: &mut dyn io::Write) -> io::Result<()> {
    let filled = (done * BAR).checked_div(total).unwrap_or(BAR).min(BAR) as usize;
    let bar = format!("{:<width$}", "#".repeat(filled), width = BAR as usize);
    let text = format!("[{bar}] {done} of {total} {noun}");
    write!(out, "\r{text:<width$}", width = Style::MAX_WIDTH - 1)?;
    out.flush()
}

/// Clears the line.
///
/// # Errors
///
/// What `out` fails with.
pub fn clear(out: &mut dyn io::Write) -> io::Result<()> {
    write!(out, "\r{:width$}\r", "", width = Style::MAX_WIDTH - 1)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_covers_the_one_before() {
        for (done, total) in [(0, 0), (0, 10_000), (5000, 10_000), (10_000, 10_000)] {
            let mut out = Vec::new();
            line(done, total, "recordings", &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.chars().count(), 80, "{text}");
            assert!(text.contains(&format!("] {done} of {total} recordings")), "{text}");
        }
    }
}
