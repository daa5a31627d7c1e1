//! Values of settings, made only from what was parsed: none can be more than one word of a shell
//! command.

use std::fmt;

/// A value of a setting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    text: String,
    /// The CPUs of a mask.
    cpus: Option<Vec<u32>>,
}

impl Value {
    fn of(text: String) -> Self {
        Self { text, cpus: None }
    }

    /// A number.
    pub fn number(number: impl Into<i128>) -> Self {
        Self::of(number.into().to_string())
    }

    /// Numbers, separated by spaces.
    pub fn numbers(numbers: &[u64]) -> Self {
        Self::of(numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" "))
    }

    /// `on` or `off`.
    pub fn switch(on: bool) -> Self {
        Self::of(if on { "on" } else { "off" }.to_owned())
    }

    /// CPUs, in ascending order, as a list such as `0-3,8`.
    pub fn cpu_list(cpus: &[u32]) -> Self {
        let ranges = cpus.chunk_by(|cpu, next| cpu + 1 == *next).map(|range| match range {
            [first, .., last] => format!("{first}-{last}"),
            single => single.iter().map(u32::to_string).collect(),
        });
        Self::of(ranges.collect::<Vec<_>>().join(","))
    }

    /// CPUs as a mask: words of 32 CPUs in hexadecimal, the highest first.
    pub fn cpu_mask(cpus: &[u32]) -> Self {
        let words = cpus.iter().max().map_or(0, |cpu| cpu / 32) as usize + 1;
        let mut bits = vec![0_u32; words];
        for cpu in cpus {
            bits[*cpu as usize / 32] |= 1 << (cpu % 32);
        }
        let words: Vec<String> = bits.iter().rev().map(|word| format!("{word:08x}")).collect();
        Self { text: words.join(","), cpus: Some(cpus.to_vec()) }
    }

    /// A word of a fixed vocabulary, such as a governor; `None`: it has other characters than
    /// letters, digits, `-`, `_` and `.`.
    pub fn word(word: &str) -> Option<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let starts = word.starts_with(|c: char| c.is_ascii_alphanumeric());
        (starts && word.chars().all(is_plain)).then(|| Self::of(word.to_owned()))
    }

    /// The CPUs of a mask as a list, `none` if there are none; `None`: it is no mask.
    pub fn mask_as_list(&self) -> Option<String> {
        let cpus = self.cpus.as_ref()?;
        Some(if cpus.is_empty() { "none".to_owned() } else { Self::cpu_list(cpus).text })
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_words_are_words() {
        assert_eq!(Value::word("mq-deadline").unwrap().as_str(), "mq-deadline");
        for word in ["", "-x", "a b", "a;b", "$(id)", "a'b", "a\n", "é", "../x"] {
            assert_eq!(Value::word(word), None, "{word:?}");
        }
    }

    #[test]
    fn cpus_are_written_as_the_kernel_reads_them() {
        assert_eq!(Value::cpu_list(&[0, 1, 2, 8]).as_str(), "0-2,8");
        assert_eq!(Value::cpu_mask(&[0, 1, 2, 3]).as_str(), "0000000f");
        assert_eq!(Value::cpu_mask(&[0, 33]).as_str(), "00000002,00000001");
        assert_eq!(Value::cpu_mask(&[]).as_str(), "00000000");
    }
}
