//! The kernel's own count of softirqs.

use std::fs;

use anyhow::{Context, Result};

/// NET_RX softirqs of all CPUs since boot. The kernel counts in 32 bits a CPU; a run in which
/// they wrap is a run of hours.
pub(crate) fn net_rx() -> Result<u64> {
    let path = "/proc/softirqs";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    sum(&text).with_context(|| format!("{path} has no NET_RX"))
}

fn sum(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("NET_RX:"))?;
    line.split_whitespace().map(|count| count.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cpus_count() {
        let text = "          CPU0       CPU1\n  NET_TX:   5  6\n  NET_RX:     17         25\n";
        assert_eq!(sum(text), Some(42));
        assert_eq!(sum("HI: 1 2"), None);
    }
}
