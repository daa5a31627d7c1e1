//! Characters that a terminal or a page does not show but obeys.

/// Whether `c` is a control character, C0 or C1, or changes the direction or the lines of the text
/// around it. Names of other people's files, processes and interfaces may contain them.
///
/// ```
/// use latency_user::model::hidden_characters::is_hidden;
///
/// assert!(is_hidden('\x1b') && is_hidden('\u{202e}') && !is_hidden('é'));
/// ```
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}
