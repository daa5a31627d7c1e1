//! Text in columns: breaking paragraphs and shortening names.

use super::Style;
use crate::model::hidden_characters::is_hidden;

/// Appends wrapped text, painted line by line, and a line end.
pub(super) fn paragraph(
    text: &mut String,
    words: &str,
    indent: usize,
    style: Style,
    paint: fn(Style, &str) -> String,
) {
    for line in wrap(words, style.columns(), indent).lines() {
        text.push_str(&paint(style, line));
        text.push('\n');
    }
}

/// Breaks `text` at spaces into lines of at most `width` characters; lines after the first are
/// indented by `indent`. A word that is longer than a line is cut.
pub(super) fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    // Leading spaces are the indent of the first line.
    let body = text.trim_start_matches(' ');
    let mut start = text.len() - body.len();
    line.push_str(&" ".repeat(start));
    for word in body.split(' ').filter(|word| !word.is_empty()) {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let space = usize::from(used > 0);
            if start + used + space + word.len() <= width {
                if space == 1 {
                    line.push(' ');
                }
                used += space + word.len();
                line.extend(&word);
                break;
            }
            if used == 0 {
                let available = width.saturating_sub(start).clamp(1, word.len());
                line.extend(word.drain(..available));
            }
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            used = 0;
            start = indent;
            if word.is_empty() {
                break;
            }
        }
    }
    if used > 0 || lines.is_empty() {
        lines.push(line);
    }
    lines.join("\n")
}

/// `text` in at most `width` characters, its middle replaced by `..` when it is longer.
pub(super) fn shorten(text: &str, width: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= width {
        return text.to_owned();
    }
    let Some(kept) = width.checked_sub(2) else {
        return ".".repeat(width);
    };
    let tail = kept / 2;
    let mut short: String = chars[..kept - tail].iter().collect();
    short.push_str("..");
    short.extend(&chars[chars.len() - tail..]);
    short
}

/// An external name, with `?` for each hidden character.
pub fn printable(name: &str) -> String {
    name.chars().map(|c| if is_hidden(c) { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_break_at_spaces() {
        assert_eq!(wrap("one two three", 8, 2), "one two\n  three");
        assert_eq!(wrap("  one two three", 9, 4), "  one two\n    three");
        assert_eq!(wrap("one", 80, 2), "one");
        assert_eq!(wrap("", 80, 2), "");
    }

    #[test]
    fn long_words_are_cut() {
        assert_eq!(wrap("a bbbbbbbbbb", 6, 2), "a\n  bbbb\n  bbbb\n  bb");
        assert_eq!(wrap("abc", 1, 5), "a\n     b\n     c");
    }

    #[test]
    fn names_keep_their_ends() {
        assert_eq!(shorten("eth0", 4), "eth0");
        assert_eq!(shorten("enp65s0f0np0", 9), "enp6..np0");
        assert_eq!(shorten("eth0", 1), ".");
        assert_eq!(shorten("eth0", 0), "");
        assert_eq!(shorten("éééééé", 5), "éé..é");
    }

    #[test]
    fn escape_sequences_are_defused() {
        assert_eq!(printable("a\x1b[31mé\u{202e}"), "a?[31mé?");
    }
}
