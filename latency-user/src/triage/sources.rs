//! What triage reads from a host: one list for live triage, captures and captured hosts.
//!
//! Rules see only what is gathered here.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    file_tree::FileTree,
    host::{
        net::{interfaces, namespaces},
        nic::directory::NicDirectory,
        process::processes,
    },
};

/// When a file is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// In both samples: it counts something, or may change in between.
    Both,
    /// In the second sample: a setting.
    Second,
}

/// Files below the root, in the order in which they are read; `*` stands for any part of a name.
const FILES: &[(&str, When)] = &[
    ("proc/stat", When::Both),
    ("proc/diskstats", When::Both),
    ("proc/pressure/cpu", When::Both),
    ("proc/pressure/io", When::Both),
    ("proc/softirqs", When::Both),
    ("proc/interrupts", When::Both),
    ("proc/net/softnet_stat", When::Both),
    ("proc/irq/*/smp_affinity_list", When::Both),
    ("sys/devices/system/cpu/cpu0/cpuidle/state*/time", When::Both),
    ("sys/devices/system/cpu/cpu0/cpuidle/state*/name", When::Second),
    ("sys/devices/system/cpu/cpu*/cpuidle/state*/latency", When::Second),
    ("sys/devices/system/cpu/cpu*/cpuidle/state*/disable", When::Second),
    ("sys/devices/system/cpu/cpu*/cpufreq/scaling_driver", When::Second),
    ("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor", When::Second),
    ("sys/devices/system/cpu/cpu*/cpufreq/energy_performance_preference", When::Second),
    ("sys/devices/system/cpu/isolated", When::Second),
    ("sys/devices/system/cpu/nohz_full", When::Second),
    ("sys/devices/system/cpu/online", When::Second),
    ("sys/devices/system/node/node*/cpulist", When::Second),
    ("sys/fs/cgroup/cpuset.cpus.isolated", When::Second),
    ("sys/block/*/device/model", When::Second),
    ("sys/block/*/device/vendor", When::Second),
    ("sys/block/*/queue/rotational", When::Second),
    ("sys/block/*/queue/scheduler", When::Second),
    ("sys/class/net/*/duplex", When::Second),
    ("sys/class/net/*/gro_flush_timeout", When::Second),
    ("sys/class/net/*/napi_defer_hard_irqs", When::Second),
    ("sys/class/net/*/operstate", When::Second),
    ("sys/class/net/*/speed", When::Second),
    ("sys/class/net/*/threaded", When::Second),
    ("sys/class/net/*/device/numa_node", When::Second),
    ("sys/class/net/*/queues/rx-*/rps_cpus", When::Second),
    ("sys/class/net/*/queues/rx-*/rps_flow_cnt", When::Second),
    ("sys/class/net/*/queues/tx-*/xps_cpus", When::Second),
    ("sys/class/net/*/statistics/rx_fifo_errors", When::Both),
    ("sys/class/net/*/statistics/rx_missed_errors", When::Both),
    ("sys/class/net/*/statistics/rx_over_errors", When::Both),
    ("proc/sys/kernel/osrelease", When::Second),
    ("proc/sys/net/core/busy_poll", When::Second),
    ("proc/sys/net/core/busy_read", When::Second),
    ("proc/sys/net/core/flow_limit_cpu_bitmap", When::Second),
    ("proc/sys/net/core/netdev_budget", When::Second),
    ("proc/sys/net/core/netdev_budget_usecs", When::Second),
    ("proc/sys/net/core/netdev_max_backlog", When::Second),
    ("proc/sys/net/core/rmem_max", When::Second),
    ("proc/sys/net/core/rps_sock_flow_entries", When::Second),
];

/// Entries that are not copies of files, and where they come from.
const DERIVED: &[(&str, &str)] = &[
    ("netns/own", "inode of the network namespace that triage ran in"),
    ("netns/hidden", "number of processes that do not show their network namespace"),
    ("netns/*/pid", "a process of another network namespace"),
    ("netns/*/netstat", "/proc/PID/net/netstat of each network namespace"),
    ("netns/*/snmp", "/proc/PID/net/snmp of each network namespace"),
    ("netns/*/dev", "/proc/PID/net/dev of each network namespace"),
    ("netns/*/ipv4.*", "net.ipv4.tcp_rmem, tcp_wmem and ip_forward of each network namespace"),
    ("interfaces.json", "names, queues and IRQs of the interfaces, from /sys/class/net"),
    ("nics.json", "drivers, rings, channels, coalescing, offloads, driver counters, qdiscs"),
    ("processes.json", "CPU time of ksoftirqd threads; whether irqbalance runs"),
    ("trace.json", "stalls by stage, when a trace was taken"),
];

/// Name of the file of interfaces.
pub(super) const INTERFACES: &str = "interfaces.json";
/// Name of the file of NIC settings.
pub(super) const NICS: &str = "nics.json";
/// Name of the file of processes.
pub(super) const PROCESSES: &str = "processes.json";
/// Name of the file of the short trace.
pub(super) const TRACE: &str = "trace.json";

/// Everything that a sample may hold, as patterns.
pub(super) fn patterns() -> Vec<&'static str> {
    FILES.iter().map(|(path, _)| *path).chain(DERIVED.iter().map(|(path, _)| *path)).collect()
}

/// What a capture holds, as a list for people.
pub fn listed() -> Vec<String> {
    let files = FILES.iter().map(|(path, _)| format!("/{path}"));
    files.chain(DERIVED.iter().map(|(path, what)| format!("{path}: {what}"))).collect()
}

/// Reads a sample of the host below `root`; `second`: reads settings too.
pub(super) fn gather(root: &Path, nics: &mut dyn NicDirectory, second: bool) -> FileTree {
    let mut tree = FileTree::default();
    for (path, when) in FILES {
        if second || *when == When::Both {
            tree.gather(root, path);
        }
    }
    put(&mut tree, INTERFACES, interfaces::list(root));
    match processes::directories(root) {
        Ok(directories) => {
            namespaces::gather(root, &directories, &mut tree);
            put(&mut tree, PROCESSES, processes::find(&directories));
        }
        Err(error) => tree.refuse(PROCESSES, format!("{error:#}")),
    }
    let answers: Vec<_> = names(&tree).iter().map(|name| nics.nic(name)).collect();
    put(&mut tree, NICS, Ok(answers));
    tree
}

/// Interfaces of our network namespace except loopback. `/sys` may show another namespace's, in
/// which it was mounted.
fn names(tree: &FileTree) -> Vec<String> {
    let own = tree.text("netns/own").unwrap_or_default();
    let text = tree.text(&format!("netns/{own}/dev")).unwrap_or_default();
    let counters = crate::host::net::interface_counters::parse(Path::new("/proc/net/dev"), text)
        .unwrap_or_default();
    let names = counters.found.into_keys().chain(counters.damaged.into_keys());
    names.filter(|name| !name.is_empty() && name != "lo").collect()
}

/// Puts an object into the tree as JSON.
pub(super) fn put<T: Serialize>(tree: &mut FileTree, name: &str, object: Result<T>) {
    let text =
        object.and_then(|object| serde_json::to_string_pretty(&object).context("write it as JSON"));
    match text {
        Ok(text) => tree.insert(name, text),
        Err(error) => tree.refuse(name, format!("{error:#}")),
    }
}
