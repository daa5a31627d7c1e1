//! The kernel's own counters.

use anyhow::{Context, Result};

/// A counter of `/proc/net/netstat` in the network namespace of this thread, such as
/// `TcpExt` `TCPRcvCollapsed`.
///
/// # Errors
///
/// When the kernel has no such counter.
pub fn netstat(group: &str, name: &str) -> Result<u64> {
    // Not /proc/net: that is the namespace of the process's first thread.
    let path = "/proc/thread-self/net/netstat";
    let text = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let mut lines = text.lines().filter(|line| line.starts_with(&format!("{group}:")));
    let (names, values) = (lines.next(), lines.next());
    let mut pairs = names
        .into_iter()
        .flat_map(str::split_ascii_whitespace)
        .zip(values.into_iter().flat_map(str::split_ascii_whitespace));
    let (_, value) =
        pairs.find(|(n, _)| *n == name).with_context(|| format!("{path} has no {group} {name}"))?;
    value.parse().with_context(|| format!("{path}: {group} {name} is {value:?}"))
}
