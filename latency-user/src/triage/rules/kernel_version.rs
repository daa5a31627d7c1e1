//! Kernel versions with known changes that affect stalls.

use crate::{
    model::finding::Detail,
    triage::{
        rule_answer::{Answers, all_ok, crossed, found, look},
        snapshot::{HostSnapshot, Unknown},
    },
};

/// CPU share of ksoftirqd, percent, from which softirqs that wait for it matter.
const KSOFTIRQD: f64 = 1.0;

/// Since 4.9 (commit 4cd13c21b207, "softirq: Let ksoftirqd do its job"), softirqs raised on a CPU
/// whose ksoftirqd is running wait for that thread. Commit d15121be7485 of May 2023 reverts it:
/// 6.5 is the first release with the revert; stable branches of older releases backported it.
const HELD_FROM: (u32, u32) = (4, 9);
const HELD_BEFORE: (u32, u32) = (6, 5);

/// From here on the default maximum of `tcp_rmem` is 32 MiB.
const LARGE_BUFFERS: (u32, u32) = (6, 16);

pub(super) fn check(host: &HostSnapshot, _: &[String]) -> Answers {
    let release = host.setting("proc/sys/kernel/osrelease")?;
    let version = version(release)
        .ok_or_else(|| Unknown(format!("{release:?} does not start with a version")))?;
    if version >= LARGE_BUFFERS {
        return all_ok(format!(
            "{release}: since 6.16 the default maximum of tcp_rmem is 32 MiB, see tcp_buffers"
        ));
    }
    if !(HELD_FROM..HELD_BEFORE).contains(&version) {
        return all_ok(format!("{release}: no known change that affects stalls"));
    }
    let (cpu, share) = super::cpu::busiest_ksoftirqd(host)?;
    if share < KSOFTIRQD {
        return all_ok(format!(
            "{release}: before 6.5 softirqs may wait for ksoftirqd while it runs; it hardly does"
        ));
    }
    Ok(vec![found(Detail {
        subject: Some(format!("CPU {cpu}")),
        weight: 36,
        seen: format!(
            "Linux {release} is older than 6.5: softirqs may wait for ksoftirqd while it runs, \
                 and ksoftirqd/{cpu} used {share:.1} % of its CPU."
        ),
        numbers: vec![crossed("ksoftirqd", share, "%", KSOFTIRQD, "/proc/PID/stat")],
        why: "Network and timer softirqs of that CPU then wait until the scheduler runs the \
                  thread. Linux 6.5 fixed this, and a distribution may have backported the fix.",
        step: look("latency-user trace --stages rx_wait,net_rx,softirq --duration 30s"),
        iface: None,
    })])
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|word| word.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_start_with_the_version() {
        assert_eq!(version("6.12.43+deb12-cloud-amd64"), Some((6, 12)));
        assert_eq!(version("5.10.0-30-amd64"), Some((5, 10)));
        assert_eq!(version("6.18-rc1"), Some((6, 18)));
        assert_eq!(version("linux"), None);
    }
}
