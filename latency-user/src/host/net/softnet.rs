//! `/proc/net/softnet_stat`: packet processing counters of each CPU, in hexadecimal.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// One CPU's line. The kernel counts in 32 bits and wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Softnet {
    /// The CPU; `None` before Linux 5.10, where lines have no number and offline CPUs no line.
    pub cpu: Option<u32>,
    /// Packets taken from rings and backlogs.
    pub processed: u32,
    /// Packets that found the backlog full.
    pub dropped: u32,
    /// Runs of `net_rx_action` that ended with work left.
    pub time_squeeze: u32,
    /// Times that another CPU asked this one to process packets (RPS).
    pub received_rps: Option<u32>,
    /// Packets dropped by the flow limit.
    pub flow_limit: Option<u32>,
}

/// Parses the file; `path` is named in errors.
///
/// # Errors
///
/// When a line cannot be parsed, with its number.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Softnet>> {
    text.lines()
        .enumerate()
        .map(|(index, line)| {
            parse_line(line).with_context(|| format!("{}:{}", path.display(), index + 1))
        })
        .collect()
}

/// `softnet_seq_show` in <https://elixir.bootlin.com/linux/v6.12/source/net/core/net-procfs.c>
fn parse_line(line: &str) -> Result<Softnet> {
    let columns = line
        .split_ascii_whitespace()
        .map(|word| {
            u32::from_str_radix(word, 16)
                .with_context(|| format!("expected a hexadecimal count, found {word:?}"))
        })
        .collect::<Result<Vec<u32>>>()?;
    let [processed, dropped, time_squeeze, ..] = columns[..] else {
        bail!("expected at least 3 columns, found {}", columns.len());
    };
    Ok(Softnet {
        processed,
        dropped,
        time_squeeze,
        received_rps: columns.get(9).copied(),
        flow_limit: columns.get(10).copied(),
        cpu: columns.get(12).copied(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Softnet>> {
        super::parse(Path::new("/proc/net/softnet_stat"), text)
    }

    #[test]
    fn columns_grew_over_time() {
        let old = "0014d029 00000002 0000004b 0 0 0 0 0 0 00000007 00000001\n";
        let softnet = Softnet {
            cpu: None,
            processed: 0x14_d029,
            dropped: 2,
            time_squeeze: 75,
            received_rps: Some(7),
            flow_limit: Some(1),
        };
        assert_eq!(parse(old).unwrap(), [softnet]);
        let new = format!("{} 00000000 000000ff 0 0\n", old.trim_end());
        assert_eq!(parse(&new).unwrap()[0].cpu, Some(255));
        assert_eq!(parse("1 2 3\n").unwrap()[0].flow_limit, None);
    }

    #[test]
    fn errors_name_file_and_line() {
        let error = format!("{:#}", parse("1 2 3\n1 2\n").unwrap_err());
        assert_eq!(error, "/proc/net/softnet_stat:2: expected at least 3 columns, found 2");
        let error = format!("{:#}", parse("1 2 x\n").unwrap_err());
        assert!(error.starts_with("/proc/net/softnet_stat:1: expected a hexadecimal"), "{error}");
    }
}
