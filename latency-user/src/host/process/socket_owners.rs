//! Which process owns a socket: `/proc/PID/fd`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

/// The first process found for each socket inode in `inodes`. Sockets that no process owns, or
/// whose owner may not be read, are absent.
///
/// Reads every open file of every process: call it rarely.
pub fn find(root: &Path, inodes: &BTreeSet<u64>) -> BTreeMap<u64, Process> {
    let mut owners = BTreeMap::new();
    let Ok(entries) = fs::read_dir(root.join("proc")) else { return owners };
    for entry in entries.filter_map(Result::ok) {
        if owners.len() == inodes.len() {
            break;
        }
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(files) = fs::read_dir(entry.path().join("fd")) else { continue };
        for file in files.filter_map(Result::ok) {
            let Ok(target) = fs::read_link(file.path()) else { continue };
            let Some(inode) = socket_inode(&target.to_string_lossy()) else { continue };
            if inodes.contains(&inode) {
                owners.entry(inode).or_insert_with(|| {
                    let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                    Process { pid, comm: comm.trim_end().to_owned() }
                });
            }
        }
    }
    owners
}

/// `socket:[12345]`
fn socket_inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn our_own_socket_is_ours() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&socket));
        let inode = fs::metadata(link).unwrap().ino();
        let owners = find(Path::new("/"), &BTreeSet::from([inode, u64::MAX]));
        assert_eq!(owners.len(), 1);
        assert_eq!(owners[&inode].pid, std::process::id());
    }

    #[test]
    fn other_files_are_no_sockets() {
        assert_eq!(socket_inode("socket:[17]"), Some(17));
        for other in ["pipe:[17]", "socket:[x]", "/tmp/socket:[17]", "socket:[17"] {
            assert_eq!(socket_inode(other), None);
        }
    }
}
