//! Keeps hidden characters from terminals, pages and files: the last thing that text passes.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use crate::model::hidden_characters::is_hidden;

/// A writer of text in which hidden characters become `?`.
pub struct Masked<W> {
    out: W,
    allowed: Allowed,
}

/// Which hidden characters of this program's own may pass, beside ends of lines and tabs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// None: files, pipes, machine-readable formats.
    Nothing,
    /// Carriage returns: a line of progress.
    CarriageReturns,
    /// Escape sequences: colours, and moves of the cursor. Views mask what is not their own.
    Sequences,
}

impl<W: Write> Masked<W> {
    /// Writes to `out`.
    pub fn new(out: W, allowed: Allowed) -> Self {
        Self { out, allowed }
    }

    /// The writer behind.
    pub fn into_inner(self) -> W {
        self.out
    }
}

impl<W: Write> Write for Masked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(&mask(bytes, self.allowed))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The text without hidden characters other than the ends of lines, tabs, and what is allowed.
fn mask(bytes: &[u8], allowed: Allowed) -> Cow<'_, [u8]> {
    let text = String::from_utf8_lossy(bytes);
    let returns = allowed == Allowed::CarriageReturns;
    let is_masked = |c: char| is_hidden(c) && !(matches!(c, '\n' | '\t') || c == '\r' && returns);
    if !text.contains(is_masked) && matches!(text, Cow::Borrowed(_)) {
        return Cow::Borrowed(bytes);
    }
    let mut masked = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(at) = rest.find(is_masked) {
        masked.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = if allowed == Allowed::Sequences { own_sequence(rest) } else { 0 };
        if length > 0 {
            masked.push_str(&rest[..length]);
            rest = &rest[length..];
        } else {
            masked.push('?');
            rest = &rest[rest.chars().next().map_or(0, char::len_utf8)..];
        }
    }
    masked.push_str(rest);
    Cow::Owned(masked.into_bytes())
}

/// The length of the escape sequence that `text` starts with, if it is one that this program
/// writes; else 0.
fn own_sequence(text: &str) -> usize {
    let Some(rest) = text.strip_prefix("\x1b[") else { return 0 };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    match rest.as_bytes().get(digits) {
        Some(b'm' | b'A' | b'J') => 2 + digits + 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &[u8], allowed: Allowed) -> String {
        let mut out = Masked::new(Vec::new(), allowed);
        out.write_all(text).unwrap();
        String::from_utf8(out.into_inner()).unwrap()
    }

    #[test]
    fn only_own_sequences_pass_and_only_on_a_terminal() {
        let text = "\x1b[1mbold\x1b[0m \x1b]0;title\x07 \x1b[2J\u{9b}31m";
        assert_eq!(
            masked(text.as_bytes(), Allowed::Sequences),
            "\x1b[1mbold\x1b[0m ?]0;title? \x1b[2J?31m"
        );
        assert_eq!(masked(text.as_bytes(), Allowed::Nothing), "?[1mbold?[0m ?]0;title? ?[2J?31m");
    }

    #[test]
    fn text_passes_and_what_reorders_it_does_not() {
        assert_eq!(masked("é\t日\n".as_bytes(), Allowed::Nothing), "é\t日\n");
        assert_eq!(masked("a\u{202e}b\u{2066}c\u{200b}".as_bytes(), Allowed::Sequences), "a?b?c?");
        assert_eq!(masked(b"a\xffb", Allowed::Nothing), "a\u{fffd}b");
        assert_eq!(masked(b"a\rb", Allowed::Nothing), "a?b");
        assert_eq!(masked(b"a\rb", Allowed::CarriageReturns), "a\rb");
    }
}
