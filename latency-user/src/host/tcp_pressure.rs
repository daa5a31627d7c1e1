//! How hard each network namespace had to press its TCP receive queues: the kernel's own counters.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::protocol_counters::ProtocolCounters;
use crate::model::tcp_pressure::TcpPressure;

/// Counters by the inode of their network namespace.
pub type ByNamespace = BTreeMap<u32, TcpPressure>;

/// Reads the counters of every network namespace that some process is in, as far as this process
/// may look; that of this thread first of all.
pub fn read(root: &Path) -> ByNamespace {
    let mut found = ByNamespace::new();
    let own = root.join("proc/thread-self");
    let others = fs::read_dir(root.join("proc"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()))
        .map(|entry| entry.path());
    for process in std::iter::once(own).chain(others) {
        // A process that is gone, or may not be looked into, tells nothing.
        let _ = add(&process, &mut found);
    }
    found
}

fn add(process: &Path, found: &mut ByNamespace) -> io::Result<()> {
    let netns = fs::metadata(process.join("ns/net"))?.ino() as u32;
    if let std::collections::btree_map::Entry::Vacant(entry) = found.entry(netns) {
        let path: PathBuf = process.join("net/netstat");
        let text = fs::read_to_string(&path)?;
        let counters = ProtocolCounters::parse(&path, &text).map_err(io::Error::other)?;
        let get = |name| counters.get("TcpExt", name).and_then(|n| u64::try_from(n).ok());
        entry.insert(TcpPressure {
            netns,
            prune_called: get("PruneCalled").unwrap_or(0),
            rcv_collapsed: get("TCPRcvCollapsed").unwrap_or(0),
            rcv_pruned: get("RcvPruned").unwrap_or(0),
            ofo_pruned: get("OfoPruned").unwrap_or(0),
        });
    }
    Ok(())
}

/// What grew since `earlier`, by namespace; those without growth are left out. A namespace that
/// came meanwhile began at 0.
pub fn grown(now: &ByNamespace, earlier: &ByNamespace) -> Vec<TcpPressure> {
    let nothing = TcpPressure::default();
    now.values()
        .map(|now| now.since(earlier.get(&now.netns).unwrap_or(&nothing)))
        .filter(|grown| !grown.is_none())
        .collect()
}
