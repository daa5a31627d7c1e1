//! Names of this kernel, this host and this process's network namespace.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use anyhow::{Context, Result};

/// The kernel's release, as `uname -r` prints it.
///
/// # Errors
///
/// When it cannot be read.
pub fn release(root: &Path) -> Result<String> {
    read_line(&root.join("proc/sys/kernel/osrelease"))
}

/// The name of the host.
///
/// # Errors
///
/// When it cannot be read.
pub fn hostname(root: &Path) -> Result<String> {
    read_line(&root.join("proc/sys/kernel/hostname"))
}

/// Inode of the network namespace that this thread is in: the number in
/// `readlink /proc/thread-self/ns/net`, and `net.ns.inum` in the kernel.
///
/// # Errors
///
/// When the namespace's file cannot be found, or its inode does not fit the kernel's 32 bits.
pub fn own_netns(root: &Path) -> Result<u32> {
    let path = root.join("proc/thread-self/ns/net");
    let inode = fs::metadata(&path).with_context(|| format!("stat {}", path.display()))?.ino();
    u32::try_from(inode)
        .with_context(|| format!("{}: inode {inode} is not a network namespace", path.display()))
}

/// How this kernel runs interrupts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preemption {
    /// Softirqs run in tasks that can be preempted (PREEMPT_RT).
    pub softirqs: bool,
    /// Handlers of hard IRQs run in tasks: always on PREEMPT_RT, elsewhere with `threadirqs`.
    pub irqs: bool,
}

/// How the running kernel runs interrupts, from its version and command line. What cannot be read
/// counts as not so.
pub fn preemption(root: &Path) -> Preemption {
    let read = |name| fs::read_to_string(root.join(name)).unwrap_or_default();
    // The patches before 5.3 write it with a space.
    let version = read("proc/sys/kernel/version");
    let softirqs = ["PREEMPT_RT", "PREEMPT RT"].iter().any(|words| version.contains(words));
    let irqs = softirqs || read("proc/cmdline").split_whitespace().any(|word| word == "threadirqs");
    Preemption { softirqs, irqs }
}

/// Packets that a poll of a CPU's backlog may process: `net.core.dev_weight` times its bias.
pub fn backlog_weight(root: &Path) -> Option<u32> {
    let read = |name| read_line(&root.join("proc/sys/net/core").join(name)).ok()?.parse().ok();
    let weight: u32 = read("dev_weight")?;
    weight.checked_mul(read("dev_weight_rx_bias")?)
}

fn read_line(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_the_target_of_its_link() {
        let link = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let inode = own_netns(Path::new("/")).unwrap();
        assert_eq!(link.to_str().unwrap(), format!("net:[{inode}]"));
    }

    #[test]
    fn preemption_is_in_the_version_or_on_the_command_line() {
        let of = |version: &str, cmdline: &str| {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
            fs::write(root.path().join("proc/sys/kernel/version"), version).unwrap();
            fs::write(root.path().join("proc/cmdline"), cmdline).unwrap();
            preemption(root.path())
        };
        let both = Preemption { softirqs: true, irqs: true };
        assert_eq!(of("#1 SMP PREEMPT_RT Debian 6.1.170-3 (2026-05-08)", "quiet"), both);
        assert_eq!(of("#1 SMP PREEMPT_RT Fri Oct 4 16:45:14 UTC 2024", "ro"), both);
        assert_eq!(of("#1 SMP PREEMPT RT Thu Aug 22 11:21:21 UTC 2019", "ro"), both);
        let none = Preemption::default();
        assert_eq!(of("#1 SMP PREEMPT_DYNAMIC Debian 6.12.9-1 (2025-01-10)", "quiet"), none);
        assert_eq!(of("#140-Ubuntu SMP Wed Dec 18 17:59:53 UTC 2024", "nothreadirqs"), none);
        let threaded = Preemption { softirqs: false, irqs: true };
        assert_eq!(of("#1 SMP PREEMPT_DYNAMIC Debian 6.12.9-1", "ro threadirqs quiet\n"), threaded);
        assert_eq!(preemption(Path::new("/nonexistent")), none);
    }

    #[test]
    fn names_lose_their_line_end_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("proc/sys/kernel");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("osrelease"), "6.12.9-cloud-amd64\n").unwrap();
        assert_eq!(release(root.path()).unwrap(), "6.12.9-cloud-amd64");
        let error = hostname(root.path()).unwrap_err().to_string();
        assert!(error.ends_with("proc/sys/kernel/hostname"), "{error}");
    }
}
