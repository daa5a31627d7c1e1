//! `/proc/net/dev`: packets of each interface of a network namespace.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, bail};

/// Counters of one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets received and dropped by the kernel or the driver.
    pub rx_dropped: u64,
    /// Packets that found the device's own queue full.
    pub rx_fifo: u64,
    /// Packets sent.
    pub tx_packets: u64,
}

/// The interfaces of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// Counters by name.
    pub found: BTreeMap<String, InterfaceCounters>,
    /// What is wrong with lines that cannot be parsed, with file and line, by the name before the
    /// colon.
    pub damaged: BTreeMap<String, String>,
}

/// Parses the file. `path` is named in errors. A damaged line does not hide the others.
///
/// # Errors
///
/// When no line can be parsed, with the number of the first.
pub fn parse(path: &Path, text: &str) -> Result<Interfaces> {
    let mut interfaces = Interfaces::default();
    let mut first = None;
    for (index, line) in text.lines().enumerate().skip(2) {
        match parse_line(line).with_context(|| format!("{}:{}", path.display(), index + 1)) {
            Ok((name, counters)) => drop(interfaces.found.insert(name, counters)),
            Err(error) => {
                let name = line.rsplit_once(':').map_or("", |(name, _)| name.trim());
                interfaces.damaged.insert(name.to_owned(), format!("{error:#}"));
                first.get_or_insert(error);
            }
        }
    }
    match first {
        Some(error) if interfaces.found.is_empty() => Err(error),
        _ => Ok(interfaces),
    }
}

fn parse_line(line: &str) -> Result<(String, InterfaceCounters)> {
    // A name may contain a colon (old aliases); a counter never does.
    let Some((name, counters)) = line.rsplit_once(':') else {
        bail!("expected an interface and a colon, found {line:?}");
    };
    let counters = counters
        .split_ascii_whitespace()
        .map(|word| word.parse().with_context(|| format!("expected a counter, found {word:?}")))
        .collect::<Result<Vec<u64>>>()?;
    if counters.len() < 10 {
        bail!("expected at least 10 counters of {}, found {}", name.trim(), counters.len());
    }
    let counters = InterfaceCounters {
        rx_packets: counters[1],
        rx_dropped: counters[3],
        rx_fifo: counters[4],
        tx_packets: counters[9],
    };
    Ok((name.trim().to_owned(), counters))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "Inter-|   Receive  |  Transmit\n face |bytes packets errs ...\n";

    fn parse(text: &str) -> Result<Interfaces> {
        super::parse(Path::new("/proc/net/dev"), &format!("{HEADER}{text}"))
    }

    #[test]
    fn names_may_be_odd() {
        let text = "  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
                    a:b-é!:1 7 0 0 0 0 0 0 0 0\n";
        let found = parse(text).unwrap().found;
        let expected =
            InterfaceCounters { rx_packets: 2, rx_dropped: 4, rx_fifo: 5, tx_packets: 10 };
        assert_eq!(found["eth0"], expected);
        assert_eq!(found["a:b-é!"].rx_packets, 7);
    }

    #[test]
    fn a_damaged_line_hides_no_other() {
        let found = parse("  eth0: 1 2 3 x\n eth1: 1 2 3 4 5 6 7 8 9 10\ngarbage\n").unwrap();
        assert_eq!(found.found.keys().collect::<Vec<_>>(), ["eth1"]);
        assert!(found.damaged["eth0"].starts_with("/proc/net/dev:3: expected a counter"));
        assert!(found.damaged[""].starts_with("/proc/net/dev:5: "), "{found:?}");
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, expected) in [
            ("eth0 1\n", "/proc/net/dev:3: expected an interface and a colon"),
            ("eth0: 1\n", "/proc/net/dev:3: expected at least 10 counters of eth0, found 1"),
            ("eth0: x\n", "/proc/net/dev:3: expected a counter, found \"x\""),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
