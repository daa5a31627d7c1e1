//! How hard each network namespace had to press its TCP receive queues: the kernel's own counters.

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

/// Reads the counters of every network namespace that some process is in, as far as this process
/// may look; that of this thread first of all.
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
            ended: false,
        });
    }
    Ok(())
}

/// So many times as long as a look took passes before the next one: with many processes it is not
/// cheap.
const REST: u32 = 1000;

/// Sums up what the counters of each namespace grew by, those of namespaces that end meanwhile
/// too, as far as they were seen: what happens in one after the last look at it is lost with it,
/// and so is one that comes and goes between two looks. To hold one open would keep it, and its
/// devices, alive.
pub struct Watch {
    root: PathBuf,
    seen: BTreeMap<u32, Seen>,
    next_look: Instant,
}

/// One namespace, or several in turn: the kernel gives the inode of one that ended to another.
struct Seen {
    /// What the earlier owners of the inode grew by.
    before: TcpPressure,
    /// Counters of the present owner when it was seen first, or 0 if it came meanwhile.
    first: TcpPressure,
    last: TcpPressure,
    is_there: bool,
}

impl Watch {
    /// Begins with the counters as they are.
    pub fn new(root: &Path) -> Self {
        let mut watch =
            Self { root: root.to_owned(), seen: BTreeMap::new(), next_look: Instant::now() };
        watch.look();
        for one in watch.seen.values_mut() {
            one.first = one.last;
        }
        watch
    }

    /// Looks again, unless the last look was so long and so shortly ago that looking would take
    /// more than a thousandth of the time.
    pub fn look_in_time(&mut self) {
        if Instant::now() >= self.next_look {
            self.look();
        }
    }

    fn look(&mut self) {
        let began = Instant::now();
        let now = read(&self.root);
        let took = began.elapsed();
        self.next_look = began + took * REST;
        for one in self.seen.values_mut() {
            one.is_there = false;
        }
        for (netns, counters) in now {
            let one = self.seen.entry(netns).or_insert_with(|| Seen {
                before: TcpPressure::default(),
                first: TcpPressure::default(),
                last: counters,
                is_there: true,
            });
            if counters.is_below(&one.last) {
                one.before = one.before.plus(&one.last.since(&one.first));
                one.first = TcpPressure::default();
            }
            one.last = counters;
            one.is_there = true;
        }
    }

    /// What grew since the begin, by namespace; those without growth are left out.
    pub fn finish(&mut self) -> Vec<TcpPressure> {
        self.look();
        let grown = self.seen.iter().map(|(netns, one)| TcpPressure {
            netns: *netns,
            ended: !one.is_there,
            ..one.before.plus(&one.last.since(&one.first))
        });
        grown.filter(|grown| !grown.is_none()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A process of the namespace that stands for `netns`, with these counters.
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
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let namespaces = ["one", "two"].map(|name| root.join(name));
        for namespace in &namespaces {
            fs::write(namespace, "").unwrap();
        }
        process(root, 10, &namespaces[0], 1000);
        let mut watch = Watch::new(root);
        process(root, 10, &namespaces[0], 1007);
        process(root, 11, &namespaces[1], 13);
        watch.look();
        fs::remove_dir_all(root.join("proc/10")).unwrap();
        process(root, 11, &namespaces[1], 30);
        let mut grown: Vec<_> =
            watch.finish().iter().map(|one| (one.prune_called, one.ended)).collect();
        grown.sort_unstable();
        assert_eq!(grown, [(7, true), (30, false)]);
    }

    #[test]
    fn an_inode_that_is_used_again_adds_up() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let namespace = root.join("one");
        fs::write(&namespace, "").unwrap();
        process(root, 10, &namespace, 1000);
        let mut watch = Watch::new(root);
        process(root, 10, &namespace, 1007);
        watch.look();
        process(root, 10, &namespace, 3);
        let grown = watch.finish();
        assert_eq!((grown[0].prune_called, grown[0].ended), (10, false));
    }
}
