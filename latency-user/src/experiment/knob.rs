//! Knobs: files of the kernel that hold a setting, and how their contents are compared.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::netns;

/// A file that holds a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knob {
    /// The file.
    pub path: PathBuf,
    /// Inode of the network namespace whose file it is; absent where namespaces share it.
    pub netns: Option<u32>,
    /// How its content reads.
    pub form: Form,
}

/// How the content of a knob reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Words: white space between them does not count.
    Words,
    /// A mask of CPUs: hexadecimal, commas between 32-bit words, leading zeros do not count.
    Mask,
    /// All choices, the present one in brackets.
    Choice,
}

impl Knob {
    /// What it holds now, in a form that can be written back.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, with its path.
    pub fn read(&self) -> Result<String> {
        let text = self.visit(|| {
            fs::read_to_string(&self.path).with_context(|| format!("read {}", self.path.display()))
        })?;
        Ok(self.form.normal(&text))
    }

    /// Writes `value`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the value, with the path.
    pub fn write(&self, value: &str) -> Result<()> {
        self.visit(|| {
            fs::write(&self.path, value)
                .with_context(|| format!("write {value:?} to {}", self.path.display()))
        })
    }

    /// Whether two contents mean the same.
    pub fn is_same(&self, one: &str, other: &str) -> bool {
        self.form.normal(one) == self.form.normal(other)
    }

    /// Whether it vanished together with its network namespace.
    pub fn is_gone(&self) -> bool {
        self.netns.is_some_and(|netns| !netns::exists(netns))
    }

    fn visit<T: Send>(&self, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        netns::within(self.netns, self.path.starts_with("/sys"), body)
    }
}

impl Form {
    /// The one spelling of a content.
    pub fn normal(self, text: &str) -> String {
        match self {
            Self::Words => text.split_ascii_whitespace().collect::<Vec<_>>().join(" "),
            Self::Mask => {
                let digits: String = text.trim().split(',').map(padded).collect();
                let digits = digits.trim_start_matches('0');
                let rest = digits.len() % 8;
                let (head, tail) = digits.split_at(rest);
                let words = tail.as_bytes().chunks(8).map(String::from_utf8_lossy);
                let head = (!head.is_empty()).then(|| head.into());
                let words: Vec<_> = head.into_iter().chain(words).collect();
                if words.is_empty() { "0".into() } else { words.join(",").to_lowercase() }
            }
            Self::Choice => {
                let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
                chosen.map_or(text.trim(), |(chosen, _)| chosen).to_owned()
            }
        }
    }
}

fn padded(word: &str) -> String {
    format!("{word:0>8}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_that_mean_the_same_are_the_same() {
        for (form, one, other, same) in [
            (Form::Words, "4096\t131072\t6291456\n", "4096 131072 6291456", true),
            (Form::Words, "1 2", "12", false),
            (Form::Mask, "00000000,00000003\n", "3", true),
            (Form::Mask, "1,00000003", "00000001,00000003", true),
            (Form::Mask, "F", "f", true),
            (Form::Mask, "0\n", "00000000", true),
            (Form::Mask, "1,00000000", "1", false),
            (Form::Choice, "none [mq-deadline] bfq\n", "mq-deadline", true),
            (Form::Choice, "[none]", "mq-deadline", false),
        ] {
            assert_eq!(form.normal(one) == form.normal(other), same, "{one:?} {other:?}");
        }
        assert_eq!(Form::Mask.normal("100000002"), "1,00000002");
    }

    #[test]
    fn errors_name_the_file() {
        let path = PathBuf::from("/no/such/file");
        let knob = Knob { path, netns: None, form: Form::Words };
        assert!(format!("{:#}", knob.read().unwrap_err()).contains("read /no/such/file"));
        assert!(format!("{:#}", knob.write("1").unwrap_err()).contains("write \"1\" to /no"));
    }
}
