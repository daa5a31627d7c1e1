//! Words of shell commands.

use crate::model::hidden_characters::is_hidden;

/// A word of a shell command, quoted if necessary. Hidden characters are written as escapes, which
/// bash, zsh, ksh and busybox read.
///
/// ```
/// use latency_user::model::remedy::shell::quoted;
///
/// assert_eq!(quoted("eth0.100"), "eth0.100");
/// assert_eq!(quoted("a;b"), "'a;b'");
/// ```
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:,=@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    if !word.contains(is_hidden) {
        return format!("'{}'", word.replace('\'', "'\\''"));
    }
    let mut text = String::from("$'");
    for c in word.chars() {
        match c {
            '\'' | '\\' => text.extend(['\\', c]),
            c if is_hidden(c) => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    text.push_str(&format!("\\x{byte:02x}"));
                }
            }
            c => text.push(c),
        }
    }
    text.push('\'');
    text
}

/// `--iface NAME`, in the form that a name may start with a dash.
pub fn iface_option(name: &str) -> String {
    format!("--iface={}", quoted(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_a_shell() {
        assert_eq!(quoted("eth0.7"), "eth0.7");
        assert_eq!(quoted("é0"), "é0");
        assert_eq!(quoted("a;rm -rf $x"), "'a;rm -rf $x'");
        assert_eq!(quoted("a'b"), r"'a'\''b'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("a\x1b'\u{202e}"), r"$'a\x1b\'\xe2\x80\xae'");
        assert_eq!(iface_option("-x"), "--iface=-x");
    }

    #[test]
    fn a_shell_reads_them_back() {
        for word in ["a;b", "$(id)", "q\"q", "a'b\\", "-x", "é0", "a\x1b[31m\u{9b}'x", "*", "~"] {
            let script = format!("printf %s {}", quoted(word));
            let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word, "{script}");
        }
    }
}
