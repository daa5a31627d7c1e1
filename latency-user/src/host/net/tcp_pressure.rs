//! TCP receive queue pressure of each network namespace: the kernel's collapse and prune counters.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Instant,
};

use super::protocol_counters::ProtocolCounters;
use crate::model::tcp_pressure::TcpPressure;

/// Counters by the inode of their network namespace.
type ByNamespace = BTreeMap<u32, TcpPressure>;

/// Reads the counters of every network namespace that has a process, this thread's namespace first.
/// Namespaces that this process may not read are left out.
fn read(root: &Path) -> ByNamespace {
    let mut found = ByNamespace::new();
    let own = root.join("proc/thread-self");
    let others = fs::read_dir(root.join("proc"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()))
        .map(|entry| entry.path());
    for process in std::iter::once(own).chain(others) {
        // Skip processes that have exited or may not be read.
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
            ended: false,
        });
    }
    Ok(())
}

/// Pause between two reads, in multiples of the last read's duration: with many processes a read is
/// not cheap.
const PAUSE_FACTOR: u32 = 1000;

/// Sums up the growth of each namespace's counters, including namespaces that end meanwhile. Growth
/// after the last read of a namespace that ends is lost, and a namespace that comes and goes
/// between two reads is missed. Holding a namespace open would keep it and its devices alive.
pub struct Watch {
    root: PathBuf,
    seen: BTreeMap<u32, Seen>,
    next_read: Instant,
}

/// One namespace, or several in turn: the kernel reuses the inode of a namespace that ended.
struct Seen {
    /// Growth of earlier namespaces with this inode.
    before: TcpPressure,
    /// First counters read from the current namespace; 0 if it appeared after the start.
    first: TcpPressure,
    last: TcpPressure,
    is_there: bool,
}

impl Seen {
    fn grown(&self) -> TcpPressure {
        self.before.plus(&self.last.since(&self.first))
    }
}

impl Watch {
    /// Starts with the current counters.
    pub fn new(root: &Path) -> Self {
        let mut watch =
            Self { root: root.to_owned(), seen: BTreeMap::new(), next_read: Instant::now() };
        watch.update();
        for namespace in watch.seen.values_mut() {
            namespace.first = namespace.last;
        }
        watch
    }

    /// Reads the counters again, unless the last read was so slow and so recent that reading would
    /// take more than a thousandth of the time.
    pub fn read_if_due(&mut self) {
        if Instant::now() >= self.next_read {
            self.update();
        }
    }

    fn update(&mut self) {
        let start = Instant::now();
        let now = read(&self.root);
        let took = start.elapsed();
        self.next_read = start + took * PAUSE_FACTOR;
        for namespace in self.seen.values_mut() {
            namespace.is_there = false;
        }
        for (netns, counters) in now {
            let namespace = self.seen.entry(netns).or_insert_with(|| Seen {
                before: TcpPressure::default(),
                first: TcpPressure::default(),
                last: counters,
                is_there: true,
            });
            if counters.is_below(&namespace.last) {
                namespace.before = namespace.before.plus(&namespace.last.since(&namespace.first));
                namespace.first = TcpPressure::default();
            }
            namespace.last = counters;
            namespace.is_there = true;
        }
        // Hosts of containers make a namespace every few seconds, for months.
        self.seen.retain(|_, namespace| namespace.is_there || !namespace.grown().is_none());
    }

    /// Growth since the start, by namespace; namespaces without growth are left out.
    pub fn finish(&mut self) -> Vec<TcpPressure> {
        self.update();
        self.so_far()
    }

    /// As [`Self::finish`], as of the last read.
    pub fn so_far(&self) -> Vec<TcpPressure> {
        let grown = self.seen.iter().map(|(netns, namespace)| TcpPressure {
            netns: *netns,
            ended: !namespace.is_there,
            ..namespace.grown()
        });
        grown.filter(|grown| !grown.is_none()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A process in the namespace that the file `netns` stands for, with these counters.
    fn process(root: &Path, pid: u32, netns: &Path, prunes: u64) {
        let process = root.join(format!("proc/{pid}"));
        fs::create_dir_all(process.join("ns")).unwrap();
        fs::create_dir_all(process.join("net")).unwrap();
        let link = process.join("ns/net");
        if !link.exists() {
            symlink(netns, link).unwrap();
        }
        let text = format!("TcpExt: PruneCalled TCPRcvCollapsed\nTcpExt: {prunes} 0\n");
        fs::write(process.join("net/netstat"), text).unwrap();
    }

    #[test]
    fn a_namespace_that_ends_keeps_what_was_seen_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let namespaces = ["one", "two"].map(|name| root.join(name));
        for namespace in &namespaces {
            fs::write(namespace, "").unwrap();
        }
        process(root, 10, &namespaces[0], 1000);
        let mut watch = Watch::new(root);
        process(root, 10, &namespaces[0], 1007);
        process(root, 11, &namespaces[1], 13);
        watch.update();
        fs::remove_dir_all(root.join("proc/10")).unwrap();
        process(root, 11, &namespaces[1], 30);
        let mut grown: Vec<_> =
            watch.finish().iter().map(|pressure| (pressure.prune_called, pressure.ended)).collect();
        grown.sort_unstable();
        assert_eq!(grown, [(7, true), (30, false)]);
    }

    #[test]
    fn an_inode_that_is_used_again_adds_up() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let namespace = root.join("one");
        fs::write(&namespace, "").unwrap();
        process(root, 10, &namespace, 1000);
        let mut watch = Watch::new(root);
        process(root, 10, &namespace, 1007);
        watch.update();
        process(root, 10, &namespace, 3);
        let grown = watch.finish();
        assert_eq!((grown[0].prune_called, grown[0].ended), (10, false));
    }
}
