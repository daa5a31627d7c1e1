//! The journal: what an experiment is about to change, on disk before it does.
//!
//! One file for each experiment under way, in a folder that outlives the process. It is written
//! to the end and synced under another name before it gets its own, so a file that is torn belongs
//! to a change that never began. Whoever runs or undoes the experiment holds a lock (flock) on it,
//! which the kernel takes back with the process: a file without a lock was left over.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::change::{self, Complaint, Saved};
use crate::model::failure::Failure;

/// Where journals lie.
pub const FOLDER: &str = "/var/lib/latency-user";

const ENDING: &str = "journal";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What a journal holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Boot of the machine: settings do not outlive it.
    pub boot: String,
    /// The process.
    pub pid: u32,
    /// When it began, RFC 3339, UTC.
    pub began_at: String,
    /// What was asked for.
    pub settings: Vec<String>,
    /// The knobs with both values.
    pub saved: Vec<Saved>,
}

/// The folder of journals.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// A journal that is held.
pub struct Journal {
    file: File,
    path: PathBuf,
}

/// A journal that nobody holds.
pub struct LeftOver {
    /// Holds it from now on.
    pub journal: Journal,
    /// What it says; `None`: it is torn, and its change never began.
    pub entry: Option<Entry>,
}

impl Entry {
    /// The entry of this process.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell its boot.
    pub fn new(began_at: String, settings: Vec<String>, saved: Vec<Saved>) -> Result<Self> {
        Ok(Self { boot: boot()?, pid: std::process::id(), began_at, settings, saved })
    }

    /// Puts everything back and tells what does not hold its old value. After a restart of the
    /// machine there is nothing to put back.
    pub fn restore(&self) -> Vec<Complaint> {
        if boot().is_ok_and(|now| now != self.boot) {
            return Vec::new();
        }
        change::restore(&self.saved)
    }
}

impl Folder {
    /// The folder at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes the journal of an experiment that is about to begin.
    ///
    /// # Errors
    ///
    /// When another experiment changes one of the knobs, or left one behind, or the folder cannot
    /// be written.
    pub fn begin(&self, entry: &Entry) -> Result<Journal> {
        fs::create_dir_all(&self.0).with_context(|| format!("make {}", self.0.display()))?;
        let gate_path = self.0.join("lock");
        let gate =
            File::create(&gate_path).with_context(|| format!("create {}", gate_path.display()))?;
        // Two that begin at once must see each other; the lock goes with `gate`.
        lock(&gate, libc::LOCK_EX).with_context(|| format!("lock {}", gate_path.display()))?;
        self.check_free(entry)?;
        let name = format!("{}-{}", entry.pid, entry.began_at.replace(':', ""));
        let path = self.0.join(format!("{name}.{ENDING}"));
        let unfinished = self.0.join(format!("{name}.unfinished"));
        let place = || format!("write {}", unfinished.display());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&unfinished)
            .with_context(place)?;
        lock(&file, libc::LOCK_EX | libc::LOCK_NB).with_context(place)?;
        file.write_all(&serde_json::to_vec(entry)?).with_context(place)?;
        file.sync_all().with_context(place)?;
        fs::rename(&unfinished, &path).with_context(place)?;
        self.sync()?;
        Ok(Journal { file, path })
    }

    /// The journals that nobody holds, locked from now on. A folder that is not there, or may
    /// not be read by this user, has none.
    pub fn left_over(&self) -> Vec<LeftOver> {
        let journals = self.paths().into_iter().filter_map(|path| Journal::take(path, false));
        journals.map(|mut journal| LeftOver { entry: journal.entry(), journal }).collect()
    }

    /// Waits for the journal called `name` to be let go and takes it; `None`: it was done with.
    pub fn take(&self, name: &str) -> Option<Journal> {
        Journal::take(self.0.join(name), true)
    }

    fn check_free(&self, entry: &Entry) -> Result<(), Failure> {
        for path in self.paths() {
            let Ok(text) = fs::read(&path) else { continue };
            let Ok(other) = serde_json::from_slice::<Entry>(&text) else { continue };
            let shared = other.saved.iter().find(|theirs| {
                entry.saved.iter().any(|ours| {
                    (&ours.knob.path, ours.knob.netns) == (&theirs.knob.path, theirs.knob.netns)
                })
            });
            let Some(shared) = shared else { continue };
            let knob = shared.knob.path.display();
            return Err(match Journal::take(path, false) {
                Some(_) => Failure::new(format!(
                    "an experiment that did not end (process {}) may have left {knob} changed",
                    other.pid
                ))
                .hint("`latency-user experiment --undo` puts it back"),
                None => Failure::new(format!(
                    "another experiment (process {}) is changing {knob}",
                    other.pid
                )),
            });
        }
        Ok(())
    }

    fn paths(&self) -> Vec<PathBuf> {
        let entries = self.0.read_dir().into_iter().flatten().filter_map(Result::ok);
        let mut paths: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == ENDING))
            .collect();
        paths.sort();
        paths
    }

    fn sync(&self) -> Result<()> {
        let folder = File::open(&self.0).and_then(|folder| folder.sync_all());
        folder.with_context(|| format!("sync {}", self.0.display()))
    }
}

impl Journal {
    /// Opens and locks a journal; `None`: someone holds it and `wait` is not wanted, or it has
    /// been done with.
    fn take(path: PathBuf, wait: bool) -> Option<Self> {
        let file = OpenOptions::new().read(true).write(true).open(&path).ok()?;
        let flags = libc::LOCK_EX | if wait { 0 } else { libc::LOCK_NB };
        lock(&file, flags).ok()?;
        // Whoever held it may have removed it meanwhile.
        (file.metadata().ok()?.nlink() > 0).then_some(Self { file, path })
    }

    /// The name of its file.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What it says; `None`: it is torn.
    pub fn entry(&mut self) -> Option<Entry> {
        let mut text = Vec::new();
        self.file.read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Removes it: everything is as it should be.
    ///
    /// # Errors
    ///
    /// When the file cannot be removed.
    pub fn done(self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.path.display()))
            }
            _ => self.path.parent().map_or(Ok(()), |folder| Folder::new(folder).sync()),
        }
    }
}

fn boot() -> Result<String> {
    let boot = fs::read_to_string(BOOT_ID).with_context(|| format!("read {BOOT_ID}"))?;
    Ok(boot.trim().to_owned())
}

fn lock(file: &File, how: libc::c_int) -> io::Result<()> {
    loop {
        // SAFETY: the descriptor is open as long as `file` lives.
        if unsafe { libc::flock(file.as_raw_fd(), how) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::knob::{Form, Knob};

    struct Ground {
        root: tempfile::TempDir,
        folder: Folder,
    }

    impl Ground {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::write(root.path().join("knob"), "old").unwrap();
            let folder = Folder::new(root.path().join("state"));
            Self { root, folder }
        }

        fn knob(&self) -> PathBuf {
            self.root.path().join("knob")
        }

        fn entry(&self, at: &str) -> Entry {
            let knob = Knob { path: self.knob(), netns: None, form: Form::Words };
            let saved = Saved { knob, old: "old".into(), new: "new".into() };
            Entry::new(at.into(), vec!["sysctl:x=new".into()], vec![saved]).unwrap()
        }
    }

    #[test]
    fn what_a_killed_process_changed_is_put_back() {
        let ground = Ground::new();
        let entry = ground.entry("1");
        let journal = ground.folder.begin(&entry).unwrap();
        assert!(ground.folder.left_over().is_empty(), "it is held");
        fs::write(ground.knob(), "new").unwrap();
        // The kernel closes the file of a process that is killed.
        drop(journal);
        let mut left = ground.folder.left_over();
        assert_eq!(left.len(), 1);
        let left = left.remove(0);
        assert_eq!(left.entry.as_ref(), Some(&entry));
        assert_eq!(left.entry.unwrap().restore(), []);
        assert_eq!(fs::read_to_string(ground.knob()).unwrap(), "old");
        left.journal.done().unwrap();
        assert!(ground.folder.left_over().is_empty());
    }

    #[test]
    fn one_experiment_on_a_knob_at_a_time() {
        let ground = Ground::new();
        let held = ground.folder.begin(&ground.entry("1")).unwrap();
        let refused = |word| {
            let error = ground.folder.begin(&ground.entry("2")).err().unwrap();
            assert!(format!("{error:#}").contains(word), "{error:#}");
        };
        refused("is changing");
        drop(held);
        refused("did not end");
        for left in ground.folder.left_over() {
            left.journal.done().unwrap();
        }
        ground.folder.begin(&ground.entry("3")).unwrap().done().unwrap();
    }

    #[test]
    fn a_torn_write_is_a_change_that_never_began() {
        let ground = Ground::new();
        let whole = serde_json::to_vec(&ground.entry("1")).unwrap();
        fs::create_dir_all(ground.folder.path()).unwrap();
        for length in 0..whole.len() {
            let path = ground.folder.path().join("7-1.journal");
            fs::write(path, &whole[..length]).unwrap();
            let mut left = ground.folder.left_over();
            assert!(left[0].entry.is_none(), "{length} bytes");
            left.remove(0).journal.done().unwrap();
        }
        fs::write(ground.folder.path().join("7-1.unfinished"), &whole).unwrap();
        assert!(ground.folder.left_over().is_empty());
        ground.folder.begin(&ground.entry("2")).unwrap().done().unwrap();
    }

    #[test]
    fn after_a_restart_nothing_is_put_back() {
        let ground = Ground::new();
        let entry = Entry { boot: "another".into(), ..ground.entry("1") };
        fs::write(ground.knob(), "new").unwrap();
        assert_eq!(entry.restore(), []);
        assert_eq!(fs::read_to_string(ground.knob()).unwrap(), "new");
    }
}
