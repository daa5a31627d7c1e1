//! The virtual machine's file system: files of the host at their own paths, with the shared
//! libraries they need, written as a cpio archive.
//!
//! Owns the archive format (cpio "newc", see Documentation/driver-api/early-userspace in the
//! kernel). The caller decides what to pack.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Component, Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_SYMLINK: u32 = 0o120_000;

enum Entry {
    Directory,
    /// Target of the link, as written.
    Symlink(PathBuf),
    HostFile(PathBuf),
    Bytes {
        content: Vec<u8>,
        permissions: u32,
    },
}

/// Entries by absolute path; sorted, so that each directory comes before its contents.
#[derive(Default)]
pub(crate) struct Archive {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Archive {
    /// Adds `path` as a directory, or as a link if it is one on the host (`/var/run`).
    pub(crate) fn directory(&mut self, path: &Path) {
        self.place(path);
    }

    /// Puts `content` at `path`.
    pub(crate) fn bytes(&mut self, path: &Path, content: Vec<u8>, permissions: u32) {
        let path = self.place_file(path);
        self.entries.insert(path, Entry::Bytes { content, permissions });
    }

    /// Puts a link to `target` at `path`, whose directories are no links.
    pub(crate) fn symlink(&mut self, path: &Path, target: &Path) {
        self.parents(path);
        self.entries.insert(path.to_owned(), Entry::Symlink(target.to_owned()));
    }

    /// Puts a file of the host at `path`, whose directories are no links.
    pub(crate) fn file(&mut self, path: &Path, source: PathBuf) {
        self.parents(path);
        self.entries.insert(path.to_owned(), Entry::HostFile(source));
    }

    fn parents(&mut self, path: &Path) {
        for parent in path.ancestors().skip(1).filter(|parent| *parent != Path::new("/")) {
            self.entries.entry(parent.to_owned()).or_insert(Entry::Directory);
        }
    }

    /// Packs a file of the host and every shared library it needs, at the same paths.
    pub(crate) fn program(&mut self, path: &Path) -> Result<()> {
        self.host_file(path)?;
        for library in libraries(path)? {
            self.host_file(&library)?;
        }
        Ok(())
    }

    fn host_file(&mut self, path: &Path) -> Result<()> {
        let metadata = fs::symlink_metadata(path)
            .with_context(|| format!("cannot pack {} into the machine", path.display()))?;
        let placed = self.place_file(path);
        if metadata.is_symlink() {
            let target = fs::read_link(path)?;
            let followed = normal(&placed.parent().unwrap_or(Path::new("/")).join(&target));
            self.entries.insert(placed, Entry::Symlink(target));
            return self.host_file(&followed);
        }
        if !metadata.is_file() {
            bail!("cannot pack {} into the machine: not a file", path.display());
        }
        self.entries.insert(placed, Entry::HostFile(path.to_path_buf()));
        Ok(())
    }

    /// The path of a file with links resolved; adds its parent directories.
    fn place_file(&mut self, path: &Path) -> PathBuf {
        let directory = self.place(path.parent().unwrap_or(Path::new("/")));
        path.file_name().map_or_else(|| directory.clone(), |name| directory.join(name))
    }

    /// Adds every directory down to `path`, as links where the host has links, and returns the
    /// resolved path: `/lib/x` is packed as `/lib -> usr/lib` and the directory `/usr/lib/x`.
    fn place(&mut self, path: &Path) -> PathBuf {
        let mut place = PathBuf::from("/");
        for component in normal(path).components() {
            let Component::Normal(name) = component else { continue };
            let next = place.join(name);
            place = match fs::read_link(&next) {
                Ok(target) => {
                    let followed = normal(&place.join(&target));
                    self.entries.insert(next, Entry::Symlink(target));
                    self.place(&followed)
                }
                Err(_) => {
                    self.entries.entry(next.clone()).or_insert(Entry::Directory);
                    next
                }
            };
        }
        place
    }

    /// Writes the archive and returns its size in bytes.
    pub(crate) fn write(&self, out: &mut impl Write) -> Result<u64> {
        let mut writer = Newc { out, written: 0, inode: 0 };
        for (path, entry) in &self.entries {
            // The kernel unpacks relative to its root.
            let name = path.strip_prefix("/").unwrap_or(path).to_string_lossy();
            match entry {
                Entry::Directory => writer.entry(&name, TYPE_DIRECTORY | 0o755, b"")?,
                Entry::Symlink(target) => {
                    let target = target.to_string_lossy();
                    writer.entry(&name, TYPE_SYMLINK | 0o777, target.as_bytes())?;
                }
                Entry::HostFile(source) => {
                    let content = fs::read(source)
                        .with_context(|| format!("cannot read {}", source.display()))?;
                    writer.entry(&name, TYPE_FILE | 0o755, &content)?;
                }
                Entry::Bytes { content, permissions } => {
                    writer.entry(&name, TYPE_FILE | permissions, content)?;
                }
            }
        }
        writer.entry("TRAILER!!!", 0, b"")?;
        writer.out.flush()?;
        Ok(writer.written)
    }
}

/// Writes entries of the format: a header of hexadecimal fields, the name, the content, each
/// padded to four bytes.
struct Newc<'a, W> {
    out: &'a mut W,
    written: u64,
    inode: u32,
}

impl<W: Write> Newc<'_, W> {
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len())
            .with_context(|| format!("{name} is too large for a cpio archive"))?;
        self.inode += 1;
        let name_size = name.len() + 1;
        // Magic, inode, mode, uid, gid, links, mtime, size, four device numbers, name size, sum.
        let header = format!(
            "070701{:08X}{mode:08X}{:08X}{:08X}{:08X}{:08X}{size:08X}\
             {:08X}{:08X}{:08X}{:08X}{name_size:08X}{:08X}",
            self.inode, 0, 0, 1, 0, 0, 0, 0, 0, 0
        );
        self.put(header.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(b"\0")?;
        self.pad()?;
        self.put(content)?;
        self.pad()?;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        let missing = self.written.next_multiple_of(4) - self.written;
        self.put(&[0; 3][..missing as usize])
    }
}

/// The shared libraries of a program, including the dynamic loader; none for a static program or a
/// data file.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output();
    let output = output.context("cannot start ldd: install libc-bin")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(line) = text.lines().find(|line| line.contains("not found")) {
        bail!("{} lacks a library here: {}", program.display(), line.trim());
    }
    // Lines are `name => /path (address)`, or `/path (address)` for the loader.
    let paths =
        text.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
    Ok(paths.map(PathBuf::from).collect())
}

/// Resolves `.` and `..` lexically.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            _ => {}
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_a_linked_directory_is_packed_once_at_the_target() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        fs::write(root.join("usr/lib/data"), "content").unwrap();
        std::os::unix::fs::symlink("usr/lib", root.join("lib")).unwrap();

        let mut archive = Archive::default();
        archive.program(&root.join("lib/data")).unwrap();

        let link = &archive.entries[&root.join("lib")];
        assert!(matches!(link, Entry::Symlink(target) if target == Path::new("usr/lib")));
        assert!(matches!(archive.entries[&root.join("usr/lib/data")], Entry::HostFile(_)));
        assert!(!archive.entries.contains_key(&root.join("lib/data")));
    }

    #[test]
    fn every_entry_starts_at_a_multiple_of_four() {
        let mut archive = Archive::default();
        archive.bytes(Path::new("/xtask-a"), b"12345".to_vec(), 0o644);
        archive.bytes(Path::new("/xtask-bc"), b"1".to_vec(), 0o755);
        let mut out = Vec::new();
        let size = archive.write(&mut out).unwrap();
        assert_eq!(size, out.len() as u64);
        let starts: Vec<_> =
            out.windows(6).enumerate().filter(|(_, w)| w == b"070701").map(|(at, _)| at).collect();
        assert_eq!(starts.len(), 3, "two files and the trailer");
        assert!(starts.iter().all(|at| at % 4 == 0), "{starts:?}");
    }

    #[test]
    fn parents_are_resolved_lexically() {
        assert_eq!(normal(Path::new("/a/./b/../../c")), Path::new("/c"));
    }
}
