//! `/proc/pressure`: the time that tasks spent waiting for CPU, I/O or memory.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// Total waiting time since boot, us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// At least one task waited.
    pub some_us: u64,
    /// All non-idle tasks waited; `None`: `cpu` has no such line before Linux 5.13.
    pub full_us: Option<u64>,
}

impl Pressure {
    /// Parses `cpu`, `io` or `memory`; `path` is named in errors.
    ///
    /// # Errors
    ///
    /// When a line cannot be parsed, with its number; when there is no `some` line.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let mut some = None;
        let mut full = None;
        for (index, line) in text.lines().enumerate() {
            let total = || {
                let (_, total) = line.rsplit_once("total=").context("expected total=")?;
                total.trim().parse().with_context(|| format!("expected us, found {total:?}"))
            };
            let place = || format!("{}:{}", path.display(), index + 1);
            match line.split(' ').next() {
                Some("some") => some = Some(total().with_context(place)?),
                Some("full") => full = Some(total().with_context(place)?),
                _ => {}
            }
        }
        match some {
            Some(some_us) => Ok(Self { some_us, full_us: full }),
            None => bail!("{}: no line `some`", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Pressure> {
        Pressure::parse(Path::new("/proc/pressure/cpu"), text)
    }

    #[test]
    fn full_may_be_missing() {
        let some = "some avg10=1.06 avg60=1.44 avg300=1.29 total=32884243\n";
        assert_eq!(parse(some).unwrap(), Pressure { some_us: 32_884_243, full_us: None });
        let both = format!("{some}full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n");
        assert_eq!(parse(&both).unwrap().full_us, Some(7));
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, expected) in [
            ("", "/proc/pressure/cpu: no line `some`"),
            ("some avg10=0\n", "/proc/pressure/cpu:1: expected total="),
            ("some total=x\n", "/proc/pressure/cpu:1: expected us, found \"x\""),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
