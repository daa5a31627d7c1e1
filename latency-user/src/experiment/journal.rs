//! The journal: what an experiment is about to change, on disk before it does.
//!
//! One file for each experiment in progress, in a directory that outlives the process. The header
//! line is written to a temporary file, synced, then renamed: a journal with a torn header
//! therefore means that no change was made yet. Each step of the change adds a line, synced before
//! the change continues, and the last complete line counts: a step whose line is torn was not
//! taken. The process that runs or undoes the experiment holds a lock (flock) on the file, which
//! the kernel releases when the process ends: a file without a lock was left over.
//!
//! What a journal says is written to the kernel's settings, so only what no other user can have
//! written is believed: the directory and the journals belong to this user, others may neither write
//! nor lock them, and a journal is a regular file, not a link.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{
    change::{self, ChangeStep, RestoreFailure, SavedValue},
    knob::Knob,
};
use crate::{model::failure::Failure, recording::output};

/// The default directory of journals.
pub const DIRECTORY: &str = "/var/lib/latency-user";

/// How long another process may be starting an experiment.
const PATIENCE: Duration = Duration::from_secs(5);

/// Permission to write, of the group and of others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

const ENDING: &str = "journal";
const UNFINISHED: &str = "unfinished";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The contents of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Boot ID of the machine: settings do not survive a reboot.
    pub boot: String,
    /// PID of the experiment.
    pub pid: u32,
    /// When it started, RFC 3339, UTC.
    #[serde(alias = "began_at")]
    pub started_at: String,
    /// The requested settings.
    #[serde(alias = "settings")]
    pub requested: Vec<String>,
    /// The knobs with their old and new values.
    pub saved: Vec<SavedValue>,
    /// The last step of the change.
    #[serde(default)]
    pub step: ChangeStep,
}

/// A later line: a step, and the values read back from the knobs that were written.
#[derive(Serialize, Deserialize)]
struct JournalLine {
    step: ChangeStep,
    #[serde(default)]
    effective: Vec<EffectiveValue>,
    /// In journals of older versions: the values of all knobs in their order.
    #[serde(default, skip_serializing)]
    new: Vec<String>,
}

/// The value read back from a knob after a write.
#[derive(Serialize, Deserialize)]
struct EffectiveValue {
    knob: Knob,
    value: String,
}

/// The directory of journals.
#[derive(Clone, Debug)]
pub struct JournalDirectory(PathBuf);

/// A journal that this process has locked.
pub struct Journal {
    file: File,
    path: PathBuf,
    /// Its contents; `None`: nothing that this version understands.
    pub entry: Option<JournalEntry>,
    /// Whether its first line is incomplete: its change never started.
    pub is_torn: bool,
}

impl JournalEntry {
    /// The entry of this process.
    ///
    /// # Errors
    ///
    /// When the boot ID cannot be read.
    pub fn new(started_at: String, requested: Vec<String>, saved: Vec<SavedValue>) -> Result<Self> {
        let (boot, pid, step) = (boot()?, std::process::id(), ChangeStep::Untouched);
        Ok(Self { boot, pid, started_at, requested, saved, step })
    }

    /// Parses the lines of a journal; `None`: the first line is torn or of another version.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut entry: Self = serde_json::from_str(lines.next()?).ok()?;
        let lines = lines.map_while(|line| serde_json::from_str::<JournalLine>(line).ok());
        for JournalLine { step, effective, new } in lines {
            entry.step = step;
            for (saved, value) in entry.saved.iter_mut().zip(new) {
                saved.effective = Some(value);
            }
            for EffectiveValue { knob, value } in effective {
                let written = entry.saved.iter_mut().find(|saved| saved.knob == knob);
                written.into_iter().for_each(|saved| saved.effective = Some(value.clone()));
            }
        }
        Some(entry)
    }

    /// A knob that no experiment changes: this program did not write the journal.
    pub fn unknown(&self) -> Option<&Knob> {
        self.saved.iter().map(|saved| &saved.knob).find(|knob| !knob.is_setting())
    }

    /// Whether the machine was started again since.
    pub fn is_of_another_boot(&self) -> bool {
        boot().is_ok_and(|now| now != self.boot)
    }

    /// Puts everything back and returns the knobs that do not hold their old values. After a reboot
    /// there is nothing to put back.
    pub fn restore(&self) -> Vec<RestoreFailure> {
        if self.is_of_another_boot() {
            return Vec::new();
        }
        change::restore(&self.saved, self.step)
    }
}

impl JournalDirectory {
    /// The directory at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes the journal of an experiment that is about to start.
    ///
    /// # Errors
    ///
    /// When another experiment is changing one of the knobs or left it changed, or the directory
    /// cannot be written.
    pub fn begin(&self, entry: &JournalEntry) -> Result<Journal> {
        // Experiments that start at the same time must see each other; dropping it unlocks it.
        let _gate = self.lock()?;
        self.remove_unfinished();
        self.check_free(entry)?;
        let name = format!("{}-{}", entry.pid, entry.started_at.replace(':', ""));
        let path = self.0.join(format!("{name}.{ENDING}"));
        let unfinished = self.0.join(format!("{name}.{UNFINISHED}"));
        let place = || format!("write {}", unfinished.display());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)
            .with_context(place)?;
        // Whatever the umask took.
        file.set_permissions(fs::Permissions::from_mode(0o600)).with_context(place)?;
        lock(&file, libc::LOCK_EX | libc::LOCK_NB).with_context(place)?;
        add(&mut file, entry).with_context(place)?;
        fs::rename(&unfinished, &path).with_context(place)?;
        self.sync()?;
        Ok(Journal { file, path, entry: Some(entry.clone()), is_torn: false })
    }

    /// Makes the directory if it is missing, and locks it.
    fn lock(&self) -> Result<File> {
        let place = || self.0.display();
        if !self.0.exists() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.0)
                .with_context(|| format!("make {}", place()))?;
            fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700))
                .with_context(|| format!("make {} private", place()))?;
        }
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(&self.0)
            .with_context(|| format!("open {}", place()))?;
        if let Some(why) = distrust(&directory) {
            return Err(Failure::new(format!("{} {why}: its journals cannot be trusted", place()))
                .hint(format!(
                    "`chown root {0} && chmod 700 {0}`, or choose another --state",
                    place()
                ))
                .into());
        }
        // One that others may open, as older versions made it, they can also lock. Any other
        // directory is the user's own.
        if self.0 == Path::new(DIRECTORY)
            && directory.metadata().is_ok_and(|metadata| metadata.mode() & 0o077 != 0)
        {
            directory
                .set_permissions(fs::Permissions::from_mode(0o700))
                .with_context(|| format!("make {} private", place()))?;
        }
        let end = Instant::now() + PATIENCE;
        while let Err(error) = lock(&directory, libc::LOCK_EX | libc::LOCK_NB) {
            if error.kind() != ErrorKind::WouldBlock {
                return Err(error).with_context(|| format!("lock {}", place()));
            }
            if Instant::now() > end {
                let who = match holder(&directory) {
                    Some(pid) => format!("process {pid}"),
                    None => "a process that is not visible here".to_owned(),
                };
                return Err(Failure::new(format!("{} is held by {who}", place()))
                    .hint("another experiment is starting, or hangs: wait, or end that process")
                    .into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(directory)
    }

    /// Locks and returns the journals that no process has locked. A directory that does not exist,
    /// or that this user may not read, has none.
    pub fn left_over(&self) -> Vec<Journal> {
        self.paths().into_iter().filter_map(|path| Journal::take(path, false)).collect()
    }

    /// Waits until the journal `name` is unlocked and locks it; `None`: it was removed.
    pub fn take(&self, name: &str) -> Option<Journal> {
        Journal::take(self.0.join(name), true)
    }

    /// What the journal `name` says, without its lock: for a watchdog whose experiment holds it and
    /// does not run.
    pub fn peek(&self, name: &str) -> Option<JournalEntry> {
        JournalEntry::parse(&text_of(&self.0.join(name))?)
    }

    /// The experiments that are in progress: their journals are locked.
    pub fn in_progress(&self) -> Vec<JournalEntry> {
        let is_locked = |path: &PathBuf| {
            let file = open(path);
            file.is_some_and(|file| lock(&file, libc::LOCK_EX | libc::LOCK_NB).is_err())
        };
        let locked = self.paths().into_iter().filter(is_locked);
        locked.filter_map(|path| JournalEntry::parse(&text_of(&path)?)).collect()
    }

    fn check_free(&self, entry: &JournalEntry) -> Result<(), Failure> {
        for path in self.paths() {
            let Some(other) = text_of(&path).and_then(|text| JournalEntry::parse(&text)) else {
                continue;
            };
            let is_ours =
                |theirs: &&SavedValue| entry.saved.iter().any(|ours| ours.knob == theirs.knob);
            let Some(SavedValue { knob, .. }) = other.saved.iter().find(is_ours) else { continue };
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

    /// Removes what no experiment needs: journals that were not finished. Does nothing where there
    /// is no directory, or where it is held.
    pub fn clean(&self) {
        if self.0.exists()
            && let Ok(_gate) = self.lock()
        {
            self.remove_unfinished();
        }
    }

    /// Removes journals that were not finished, as on a full disk: their changes never started.
    /// Needs the lock of the directory: without it, one may be about to be finished.
    fn remove_unfinished(&self) {
        for path in self.with_ending(UNFINISHED) {
            // Whoever has locked it is writing it.
            let is_left =
                open(&path).is_some_and(|file| lock(&file, libc::LOCK_EX | libc::LOCK_NB).is_ok());
            if is_left {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.with_ending(ENDING)
    }

    fn with_ending(&self, wanted: &str) -> Vec<PathBuf> {
        let entries = self.0.read_dir().into_iter().flatten().filter_map(Result::ok);
        let mut paths: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == wanted))
            .collect();
        paths.sort();
        paths
    }

    fn sync(&self) -> Result<()> {
        let directory = File::open(&self.0).and_then(|directory| directory.sync_all());
        directory.with_context(|| format!("sync {}", self.0.display()))
    }
}

impl Journal {
    /// Opens and locks a journal; `None`: another process has locked it and `wait` is false, or it
    /// was removed.
    fn take(path: PathBuf, wait: bool) -> Option<Self> {
        let mut file = open(&path)?;
        let flags = libc::LOCK_EX | if wait { 0 } else { libc::LOCK_NB };
        lock(&file, flags).ok()?;
        // The process that had locked it may have removed it meanwhile.
        if file.metadata().ok()?.nlink() == 0 {
            return None;
        }
        let mut text = String::new();
        let is_read = file.read_to_string(&mut text).is_ok();
        let entry = is_read.then(|| JournalEntry::parse(&text)).flatten();
        // A file that cannot be read may be complete.
        let is_torn = is_read && entry.is_none() && !text.contains('\n');
        Some(Self { file, path, entry, is_torn })
    }

    /// Records a step of the change, with the values read back so far.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn note(&mut self, step: ChangeStep, saved: &[SavedValue]) -> Result<()> {
        let written = saved.iter().filter_map(|value| {
            Some(EffectiveValue { knob: value.knob.clone(), value: value.effective.clone()? })
        });
        let effective = written.collect();
        add(&mut self.file, &JournalLine { step, effective, new: Vec::new() })
            .with_context(|| format!("write {}", self.path.display()))?;
        if let Some(entry) = &mut self.entry {
            entry.step = step;
            entry.saved = saved.to_vec();
        }
        Ok(())
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of its file.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Removes the journal: nothing is left to put back.
    ///
    /// # Errors
    ///
    /// When the file cannot be removed.
    pub fn done(self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.path.display()))
            }
            _ => self
                .path
                .parent()
                .map_or(Ok(()), |directory| JournalDirectory::new(directory).sync()),
        }
    }
}

/// Opens a journal; `None`: there is none that can be trusted.
fn open(path: &Path) -> Option<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let is_regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
    (is_regular && distrust(&file).is_none()).then_some(file)
}

/// What a journal that can be trusted holds.
fn text_of(path: &Path) -> Option<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Why another user can have written a file or directory; `None`: only we, or root, can.
fn distrust(file: &File) -> Option<&'static str> {
    let Ok(metadata) = file.metadata() else { return Some("cannot be examined") };
    if metadata.uid() != 0 && !output::is_ours(&metadata) {
        return Some("belongs to another user");
    }
    (metadata.mode() & WRITABLE_BY_OTHERS != 0).then_some("can be written by other users")
}

/// The process that holds a lock (flock) on a file, as `/proc/locks` lists it.
fn holder(file: &File) -> Option<u32> {
    let file = file.metadata().ok()?;
    let (major, minor) = (libc::major(file.dev()), libc::minor(file.dev()));
    let wanted = format!("{major:02x}:{minor:02x}:{}", file.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // `1: FLOCK  ADVISORY  WRITE 5023 fe:00:131 0 EOF`; who waits has an arrow before its kind.
    locks.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, "FLOCK", _, _, pid, inode, ..] if inode == wanted => pid.parse().ok(),
        _ => None,
    })
}

/// Appends a line and syncs it to disk.
fn add(file: &mut File, line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_all()
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
mod tests;
