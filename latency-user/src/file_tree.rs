//! An in-memory copy of files: the input of triage, whether just read or captured earlier.
//!
//! Owns paths relative to a root, patterns over them, and reasons why a file could not be read.
//! The caller decides which files to read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// File of a stored tree that holds, as JSON, why files could not be read.
const REFUSED: &str = "refused.json";

/// Files by their path below the root, without a leading slash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileTree {
    files: BTreeMap<String, String>,
    refused: BTreeMap<String, String>,
}

impl FileTree {
    /// Reads all files below `root` whose path matches `pattern`, in which `*` stands for any
    /// part of a name. Files that do not exist are left out; for files that cannot be read, the
    /// reason is kept.
    pub fn gather(&mut self, root: &Path, pattern: &str) {
        self.gather_from(root, pattern, Trust::Kernel);
    }

    fn gather_from(&mut self, root: &Path, pattern: &str, trust: Trust) {
        let segments: Vec<&str> = pattern.split('/').collect();
        let mut path = PathBuf::from(root);
        self.descend(&mut path, "", &segments, trust);
    }

    fn descend(&mut self, path: &mut PathBuf, name: &str, segments: &[&str], trust: Trust) {
        // Links in a copy may lead out of it.
        if trust == Trust::Copy && fs::symlink_metadata(&path).is_ok_and(|m| m.is_symlink()) {
            return self.refuse(name, "it is a symbolic link".into());
        }
        let Some((segment, rest)) = segments.split_first() else {
            return self.read(path, name, trust);
        };
        let names = match segment.contains('*') {
            false => vec![(*segment).to_owned()],
            true => match names_in(path) {
                Ok(names) => names.into_iter().filter(|name| matches(segment, name)).collect(),
                Err(error) if is_absence(&error) => Vec::new(),
                Err(error) => return self.refuse(&join(name, segment), error.to_string()),
            },
        };
        for child in names {
            path.push(&child);
            self.descend(path, &join(name, &child), rest, trust);
            path.pop();
        }
    }

    fn read(&mut self, path: &Path, name: &str, trust: Trust) {
        let bytes = match trust {
            Trust::Kernel => fs::read(path),
            Trust::Copy => read_regular(path),
        };
        match bytes {
            Ok(bytes) => self.insert(name, String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if is_absence(&error) => {}
            Err(error) => self.refuse(name, error.to_string()),
        }
    }

    /// Adds a file to the tree.
    pub fn insert(&mut self, path: &str, text: String) {
        self.files.insert(path.to_owned(), text);
    }

    /// Records why a file is missing.
    pub fn refuse(&mut self, path: &str, reason: String) {
        self.refused.insert(path.to_owned(), reason);
    }

    /// The text of a file.
    ///
    /// # Errors
    ///
    /// The reason why it is missing.
    pub fn text(&self, path: &str) -> Result<&str, String> {
        match (self.files.get(path), self.refused.get(path)) {
            (Some(text), _) => Ok(text),
            (None, Some(reason)) => Err(format!("/{path} cannot be read: {reason}")),
            (None, None) => Err(format!("/{path} is absent")),
        }
    }

    /// Names directly below a directory, in order.
    pub fn children(&self, directory: &str) -> BTreeSet<&str> {
        let prefix = format!("{directory}/");
        self.files
            .range(prefix.clone()..)
            .map_while(|(path, _)| path.strip_prefix(&prefix))
            .filter_map(|rest| rest.split('/').next())
            .collect()
    }

    /// Paths and texts, in order, as they are stored: the reasons are in a file of their own.
    ///
    /// # Errors
    ///
    /// Never in practice: the reasons are plain strings.
    pub fn stored(&self) -> Result<BTreeMap<String, String>> {
        let mut files = self.files.clone();
        if !self.refused.is_empty() {
            files.insert(REFUSED.into(), serde_json::to_string_pretty(&self.refused)?);
        }
        Ok(files)
    }

    /// Reads a tree that was stored below `root`: the files that match one of `patterns`.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn load(root: &Path, patterns: &[&str]) -> Result<Self> {
        let mut tree = Self::default();
        for pattern in patterns {
            tree.gather_from(root, pattern, Trust::Copy);
        }
        // A file that cannot be read here is a defect of the copy, not a fact about the host.
        if let Some((path, reason)) = tree.refused.pop_first() {
            anyhow::bail!("read {}: {reason}", root.join(path).display());
        }
        let path = root.join(REFUSED);
        match read_regular(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()) {
            Ok(text) => {
                tree.refused = serde_json::from_str(&text)
                    .with_context(|| format!("parse {}", path.display()))?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
        Ok(tree)
    }
}

/// Whose files are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// The kernel's, below `/proc` and `/sys`, with its links.
    Kernel,
    /// Somebody's copy: regular files of a plausible size only, and no links.
    Copy,
}

/// The longest file that a copy may have: `/proc/interrupts` of 8192 CPUs has a few MiB.
const LONGEST: u64 = 64 << 20;

/// Reads a regular file that is no link, without waiting for anything.
///
/// # Errors
///
/// When it cannot be opened, is something else, or is too long.
pub fn read_regular(path: &Path) -> std::io::Result<Vec<u8>> {
    let other = |what: &str| std::io::Error::other(what.to_owned());
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => other("it is a symbolic link"),
        _ => error,
    })?;
    if !file.metadata()?.is_file() {
        return Err(other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > LONGEST {
        true => Err(other("it is longer than 64 MiB")),
        false => Ok(bytes),
    }
}

fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

fn names_in(directory: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        // Names that are not UTF-8 are skipped: a string cannot name them.
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Whether `name` fits `pattern`, in which each `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(head) else { return false };
    let mut ends = (0..=rest.len()).filter(|at| rest.is_char_boundary(*at));
    ends.any(|at| matches(tail, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        directory
    }

    #[test]
    fn patterns_pick_files_and_nothing_else() {
        let directory = directory(&[
            ("net/eth0/queues/rx-0/rps_cpus", "f"),
            ("net/eth0/queues/tx-0/rps_cpus", "no"),
            ("net/é !/queues/rx-10/rps_cpus", "1"),
            ("net/bonding_masters", "no"),
            ("net/eth0/address", "no"),
        ]);
        let mut tree = FileTree::default();
        tree.gather(directory.path(), "net/*/queues/rx-*/rps_cpus");
        assert_eq!(tree.text("net/eth0/queues/rx-0/rps_cpus"), Ok("f"));
        assert_eq!(tree.children("net"), BTreeSet::from(["eth0", "é !"]));
        assert_eq!(tree.stored().unwrap().len(), 2);
        assert_eq!(tree.text("net/eth0/address"), Err("/net/eth0/address is absent".into()));
    }

    #[test]
    fn a_directory_in_place_of_a_file_is_refused_with_its_reason() {
        let directory = directory(&[("a/b", "")]);
        let mut tree = FileTree::default();
        tree.gather(directory.path(), "a");
        assert!(tree.text("a").unwrap_err().starts_with("/a cannot be read: "));
        let stored = tree.stored().unwrap();
        let copy = self::directory(&[(REFUSED, &stored[REFUSED])]);
        assert_eq!(FileTree::load(copy.path(), &["a"]).unwrap(), tree);
    }

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, name, fits) in [
            ("cpu*", "cpu17", true),
            ("cpu*", "xcpu1", false),
            ("*", "", true),
            ("rx-*-a", "rx-é-a", true),
            ("rx-*-a", "rx-b", false),
            ("a*b*c", "abbcc", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
