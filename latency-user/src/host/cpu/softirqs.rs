//! `/proc/softirqs`: how often each CPU ran each softirq vector.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

use super::cpus::parse_header;

/// The complete table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Softirqs {
    /// The columns: possible CPUs, whether online or not.
    pub cpus: Vec<u32>,
    /// The lines, in the order of the vectors' numbers.
    pub vectors: Vec<SoftirqCounts>,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoftirqCounts {
    /// Name of the vector, such as `NET_RX`.
    pub name: String,
    /// Runs on each CPU of [`Softirqs::cpus`]. The kernel counts in 32 bits and wraps.
    pub counts: Vec<u32>,
}

impl Softirqs {
    /// Reads the table.
    ///
    /// # Errors
    ///
    /// When the file cannot be read; when a line cannot be parsed, with its number.
    pub fn read(root: &Path) -> Result<Self> {
        let path = root.join("proc/softirqs");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&path, &text)
    }

    /// The counts of the vector called `name`, one for each of [`Softirqs::cpus`].
    pub fn counts(&self, name: &str) -> Option<&[u32]> {
        let vector = self.vectors.iter().find(|vector| vector.name == name)?;
        Some(&vector.counts)
    }

    /// Parses the table; `path` is named in errors.
    ///
    /// # Errors
    ///
    /// When a line cannot be parsed, with its number.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let mut lines = text.lines().enumerate();
        let cpus = match lines.next() {
            Some((_, header)) => parse_header(path, header)?,
            None => bail!("{}:1: expected a line of CPUs, found an empty file", path.display()),
        };
        let vectors = lines
            .map(|(index, line)| {
                parse_line(line, cpus.len())
                    .with_context(|| format!("{}:{}", path.display(), index + 1))
            })
            .collect::<Result<_>>()?;
        Ok(Self { cpus, vectors })
    }
}

fn parse_line(line: &str, cpus: usize) -> Result<SoftirqCounts> {
    let Some((name, counts)) = line.split_once(':') else {
        bail!("expected a vector and a colon, found {line:?}");
    };
    let name = name.trim().to_owned();
    let counts = counts
        .split_whitespace()
        .map(|count| {
            count.parse().with_context(|| format!("expected a count of {name}, found {count:?}"))
        })
        .collect::<Result<Vec<_>>>()?;
    if counts.len() != cpus {
        bail!("expected {cpus} counts of {name}, found {}", counts.len());
    }
    Ok(SoftirqCounts { name, counts })
}

#[cfg(test)]
mod tests {
    use latency_common::stage::VECTOR_NAMES;

    use super::*;

    const HEADER: &str = "                    CPU0       CPU1       \n";

    fn parse(text: &str) -> Result<Softirqs> {
        Softirqs::parse(Path::new("/proc/softirqs"), text)
    }

    #[test]
    fn each_vector_has_a_count_per_cpu() {
        let text = format!(
            "{HEADER}          HI:          0          1\n      NET_RX:       4167 4294967295\n"
        );
        let softirqs = parse(&text).unwrap();
        assert_eq!(softirqs.cpus, [0, 1]);
        assert_eq!(softirqs.counts("NET_RX"), Some(&[4167, u32::MAX][..]));
        assert_eq!(softirqs.counts("RCU"), None);
    }

    #[test]
    fn errors_name_file_and_line() {
        let cases = [
            ("HI: 1\n", "/proc/softirqs:2: expected 2 counts of HI, found 1"),
            ("HI: 1 2\nTIMER 3 4\n", "/proc/softirqs:3: expected a vector and a colon"),
            ("HI: 1 x\n", "/proc/softirqs:2: expected a count of HI, found \"x\""),
        ];
        for (text, expected) in cases {
            let error = format!("{:#}", parse(&format!("{HEADER}{text}")).unwrap_err());
            assert!(error.starts_with(expected), "{error}");
        }
        assert!(parse("").is_err());
    }

    #[test]
    fn the_live_table_has_the_vectors_that_we_know() {
        let softirqs = Softirqs::read(Path::new("/")).unwrap();
        let names: Vec<&str> = softirqs.vectors.iter().map(|vector| vector.name.as_str()).collect();
        assert_eq!(names, VECTOR_NAMES);
    }
}
