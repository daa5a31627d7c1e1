//! The kernel's own count of softirqs.

use std::fs;

use anyhow::{Context, Result};

/// NET_RX softirqs of each CPU since boot, in 32-bit counters that wrap.
#[derive(Clone)]
pub(crate) struct NetRx(Vec<u32>);

/// Reads the kernel's counters.
pub(crate) fn net_rx() -> Result<NetRx> {
    let path = "/proc/softirqs";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    by_cpu(&text).with_context(|| format!("{path} has no NET_RX"))
}

impl NetRx {
    /// Softirqs since `earlier`, summed over all CPUs.
    pub(crate) fn since(&self, earlier: &Self) -> u64 {
        let pairs = self.0.iter().zip(&earlier.0);
        pairs.map(|(now, before)| u64::from(now.wrapping_sub(*before))).sum()
    }
}

fn by_cpu(text: &str) -> Option<NetRx> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("NET_RX:"))?;
    let counts = line.split_whitespace().map(|count| count.parse().ok());
    counts.collect::<Option<_>>().map(NetRx)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softirqs_of_all_cpus_are_counted() {
        let text = "          CPU0       CPU1\n  NET_TX:   5  6\n  NET_RX:     17         25\n";
        let later = "NET_RX: 20 4294967295\n";
        let [first, second] = [text, later].map(|text| by_cpu(text).unwrap());
        assert_eq!(second.since(&first), 3 + u64::from(u32::MAX - 25));
        // The second CPU's counter wraps from 2^32 - 1 to 25.
        assert_eq!(first.since(&second), u64::from(17u32.wrapping_sub(20)) + 26);
        assert!(by_cpu("HI: 1 2").is_none());
    }
}
