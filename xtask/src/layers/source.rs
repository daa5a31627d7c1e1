//! Rust source text, read just far enough to see imports, uses of aya and printing.
//!
//! Owns comments, literals, paths and inline modules. Knows no rule. Not a parser: a path made by
//! a macro, or one behind `use crate as other`, is not seen.

/// Something the rules have a say about, and its line, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) line: usize,
    pub(super) what: What,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A path from the crate's root; this is its first segment.
    Imports(String),
    UsesAya,
    Prints,
}

/// Everything of interest in the file of a module that lies `depth` levels below the crate's root.
pub(super) fn findings(text: &str, depth: usize) -> Vec<Finding> {
    let tokens = tokens(text);
    let mut findings = Vec::new();
    let mut braces = 0_usize;
    // Inline modules around the current token: the brace depth outside, and whether it is `tests`.
    let mut inline: Vec<(usize, bool)> = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let rest = &tokens[at..];
        let in_tests = inline.iter().any(|(_, tests)| *tests);
        match token.text {
            "{" => braces += 1,
            "}" => {
                braces = braces.saturating_sub(1);
                inline.pop_if(|(outside, _)| *outside == braces);
            }
            "mod" if is(rest, 2, "{") => inline.push((braces, is(rest, 1, "tests"))),
            "crate" | "latency_user" if is(rest, 1, "::") => {
                findings.extend(first_segments(&rest[2..]));
            }
            "super" if is(rest, 1, "::") => {
                let supers = rest.chunks(2).take_while(|pair| is_pair(pair, "super", "::")).count();
                // That many lead exactly to the root; fewer stay within the room.
                if supers == depth + inline.len() {
                    findings.extend(first_segments(&rest[2 * supers..]));
                }
                at += 2 * supers;
                continue;
            }
            "print" | "println" | "eprint" | "eprintln" if is(rest, 1, "!") && !in_tests => {
                findings.push(Finding { line: token.line, what: What::Prints });
            }
            name if name == "aya" || name.starts_with("aya_") => {
                let used = at > 0 && tokens[at - 1].text == "use";
                if used || is(rest, 1, "::") {
                    findings.push(Finding { line: token.line, what: What::UsesAya });
                }
            }
            _ => {}
        }
        at += 1;
    }
    findings
}

/// The first segment of a path, or of each path in a group: `a` and `c` of `{a::{b}, c::d}`.
fn first_segments(tokens: &[Token<'_>]) -> Vec<Finding> {
    let found = |token: &Token<'_>| Finding {
        line: token.line,
        what: What::Imports(token.text.to_owned()),
    };
    if !is(tokens, 0, "{") {
        return tokens.first().map(found).into_iter().collect();
    }
    let mut segments = Vec::new();
    let mut depth = 0;
    let mut before = "";
    for token in tokens {
        match token.text {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," => {}
            _ if depth == 1 && (before == "{" || before == ",") => segments.push(found(token)),
            _ => {}
        }
        if depth == 0 {
            break;
        }
        before = token.text;
    }
    segments
}

fn is(tokens: &[Token<'_>], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|token| token.text == text)
}

fn is_pair(pair: &[Token<'_>], first: &str, second: &str) -> bool {
    is(pair, 0, first) && is(pair, 1, second)
}

/// A word, `::`, or any other single character; never from a comment or a literal.
#[derive(Debug)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (length, counts) = next(rest, first);
        let (token, after) = rest.split_at(length);
        if counts {
            tokens.push(Token { text: token, line });
        }
        line += token.matches('\n').count();
        rest = after;
    }
    tokens
}

/// Length in bytes of what `text` begins with, and whether it is a token.
fn next(text: &str, first: char) -> (usize, bool) {
    if text.starts_with("//") {
        return (text.find('\n').unwrap_or(text.len()), false);
    }
    if text.starts_with("/*") {
        return (block_comment(text), false);
    }
    if let Some(length) = string(text) {
        return (length, false);
    }
    if first == '\'' {
        return (quote(text), false);
    }
    if first.is_alphanumeric() || first == '_' {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        return (text.find(|c| !word(c)).unwrap_or(text.len()), true);
    }
    if text.starts_with("::") {
        return (2, true);
    }
    (first.len_utf8(), !first.is_whitespace())
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Length of the string literal that `text` begins with, of any kind.
fn string(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        let rest = text.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.trim_start_matches('#').starts_with('"'))
    })?;
    let rest = &text[prefix.len()..];
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let opened = prefix.len() + hashes + 1;
    if prefix.ends_with('r') {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(text[opened..].find(&end).map_or(text.len(), |at| opened + at + end.len()));
    }
    // A hash before a plain string is a token of its own, as in an attribute of a macro.
    if hashes > 0 {
        return None;
    }
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(opened) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// Length of a character literal, or of the quote alone where a lifetime begins.
fn quote(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some(_)) => {
            characters.find(|(_, c)| *c == '\'').map_or(text.len(), |(at, _)| at + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}
