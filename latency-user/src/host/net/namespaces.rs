//! Network namespaces: the counters and settings of each.
//!
//! Finds the namespaces of all processes and enters each. Stores `netns/INODE/FILE` in a tree for
//! each namespace, and the inode of this process's namespace as `netns/own`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    thread,
};

use crate::{file_tree::FileTree, host::kernel};

/// Files below `/proc/PID/net` to read for each namespace.
const FILES: [&str; 3] = ["netstat", "snmp", "dev"];

/// Per-namespace settings below `/proc/sys/net`.
const SETTINGS: [&str; 3] = ["ipv4/tcp_rmem", "ipv4/tcp_wmem", "ipv4/ip_forward"];

/// Reads the namespaces of the processes in `directories` into `tree`.
pub fn gather(root: &Path, directories: &[(u32, PathBuf)], tree: &mut FileTree) {
    let own = match kernel::own_netns(root) {
        Ok(own) => own,
        Err(error) => return tree.refuse("netns/own", format!("{error:#}")),
    };
    tree.insert("netns/own", own.to_string());
    read(&root.join("proc/thread-self/net"), own, tree);
    for setting in SETTINGS {
        put(&root.join("proc/sys/net").join(setting), own, &file_of(setting), tree);
    }
    let (others, hidden) = others(directories, own);
    if hidden > 0 {
        tree.insert("netns/hidden", hidden.to_string());
    }
    for (inode, (pid, directory)) in others {
        tree.insert(&format!("netns/{inode}/pid"), pid.to_string());
        read(&directory.join("net"), inode, tree);
        for (setting, text) in settings(&directory.join("ns/net")) {
            let path = format!("netns/{inode}/{}", file_of(setting));
            match text {
                Ok(text) => tree.insert(&path, text),
                Err(reason) => tree.refuse(&path, reason),
            }
        }
    }
}

/// One process of each other namespace, and the number of processes that hide theirs.
fn others(directories: &[(u32, PathBuf)], own: u32) -> (BTreeMap<u32, (u32, &PathBuf)>, u32) {
    let mut found = BTreeMap::new();
    let mut hidden = 0;
    for (pid, directory) in directories {
        let inode = match fs::read_link(directory.join("ns/net")) {
            Ok(link) => inode_in(&link.to_string_lossy()),
            Err(error) => {
                // A process that has exited meanwhile does not count as hidden.
                hidden += u32::from(error.kind() == std::io::ErrorKind::PermissionDenied);
                None
            }
        };
        if let Some(inode) = inode.filter(|inode| *inode != own) {
            found.entry(inode).or_insert((*pid, directory));
        }
    }
    (found, hidden)
}

/// `net:[4026531840]`
fn inode_in(link: &str) -> Option<u32> {
    link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

fn file_of(setting: &str) -> String {
    setting.replace('/', ".")
}

fn read(directory: &Path, inode: u32, tree: &mut FileTree) {
    for file in FILES {
        put(&directory.join(file), inode, file, tree);
    }
}

fn put(path: &Path, inode: u32, name: &str, tree: &mut FileTree) {
    let stored = format!("netns/{inode}/{name}");
    match fs::read_to_string(path) {
        Ok(text) => tree.insert(&stored, text),
        Err(error) => tree.refuse(&stored, format!("{}: {error}", path.display())),
    }
}

/// A setting's name, and its value or why it cannot be read.
type Setting = (&'static str, Result<String, String>);

/// Reads settings in a thread that enters the namespace: `/proc/sys/net` shows the reader's own.
fn settings(namespace: &Path) -> Vec<Setting> {
    let visit = || -> Vec<Setting> {
        if let Err(reason) = enter(namespace) {
            return SETTINGS.into_iter().map(|setting| (setting, Err(reason.clone()))).collect();
        }
        let read = |setting: &str| {
            let path = format!("/proc/sys/net/{setting}");
            fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
        };
        SETTINGS.into_iter().map(|setting| (setting, read(setting))).collect()
    };
    // Only the spawned thread changes its namespace, and it ends after the reads.
    thread::scope(|scope| scope.spawn(visit).join().unwrap_or_default())
}

fn enter(namespace: &Path) -> Result<(), String> {
    let file = File::open(namespace).map_err(|e| format!("{}: {e}", namespace.display()))?;
    // SAFETY: changes the network namespace of this thread only; no memory is touched.
    if unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(format!("entering the namespace needs CAP_SYS_ADMIN: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_is_read_and_named() {
        let mut tree = FileTree::default();
        gather(Path::new("/"), &[], &mut tree);
        let own = tree.text("netns/own").unwrap().to_owned();
        assert!(tree.text(&format!("netns/{own}/netstat")).unwrap().starts_with("TcpExt:"));
        let rmem = fs::read_to_string("/proc/sys/net/ipv4/tcp_rmem").unwrap();
        assert_eq!(tree.text(&format!("netns/{own}/ipv4.tcp_rmem")), Ok(rmem.as_str()));
    }

    #[test]
    fn each_other_namespace_is_visited_once() {
        let root = tempfile::tempdir().unwrap();
        let mut directories = Vec::new();
        for (pid, inode) in [(7, 100), (8, 200), (9, 200)] {
            let directory = root.path().join(pid.to_string());
            fs::create_dir_all(directory.join("ns")).unwrap();
            let link = format!("net:[{inode}]");
            std::os::unix::fs::symlink(link, directory.join("ns/net")).unwrap();
            directories.push((pid, directory));
        }
        let (others, hidden) = others(&directories, 100);
        assert_eq!(others.keys().copied().collect::<Vec<_>>(), [200]);
        assert_eq!((others[&200].0, hidden), (8, 0));
    }

    #[test]
    fn a_namespace_that_cannot_be_entered_has_a_reason_for_each_setting() {
        let read = settings(Path::new("/no/such/namespace"));
        assert_eq!(read.len(), SETTINGS.len());
        assert!(read.iter().all(|(_, text)| text.as_ref().is_err_and(|why| why.contains("/no"))));
    }
}
