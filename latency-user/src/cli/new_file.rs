//! Output files that appear complete or not at all.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::{
        fd::{AsRawFd, BorrowedFd, RawFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{model::failure::Failure, recording::output};

/// A file that replaces the one at its path when it is finished. Until then, and if it is never
/// finished, the old one stays as it is.
///
/// The new one has no name while it is written, so that a process that is killed leaves nothing
/// behind. For the moment in which it replaces an old one, and on file systems that cannot do that,
/// it has a name beside the path; what a killed process left there is removed by the next one.
pub struct NewFile {
    file: File,
    path: PathBuf,
    state: State,
    /// Its permissions; `None`: those of the file that it replaces, or what the umask leaves.
    mode: Option<u32>,
}

/// How the file gets its name.
enum State {
    /// It has none yet.
    Unnamed,
    /// It has this name until it is finished.
    Beside(PathBuf),
    /// A device, or a descriptor that is open: written directly.
    Device,
}

impl NewFile {
    /// A file with the mode 0666 without the bits of the umask, to replace `path`.
    ///
    /// # Errors
    ///
    /// When the directory cannot be written, when `path` is one of `inputs`, by whatever name, or
    /// when something is there that is not a regular file: a symbolic link, a directory, a FIFO.
    pub fn create(path: &Path, inputs: &[PathBuf]) -> Result<Self> {
        Self::open(path, None, inputs)
    }

    /// As [`Self::create`], with the permissions `mode`, whatever stands there.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn private(path: &Path, mode: u32, inputs: &[PathBuf]) -> Result<Self> {
        Self::open(path, Some(mode), inputs)
    }

    fn open(path: &Path, mode: Option<u32>, inputs: &[PathBuf]) -> Result<Self> {
        let failed = || format!("cannot create {}", path.display());
        if let Some(fd) = open_descriptor(path) {
            // SAFETY: the descriptor is only borrowed for the copy; a closed one is an error.
            let open = unsafe { BorrowedFd::borrow_raw(fd) };
            let file = File::from(open.try_clone_to_owned().with_context(failed)?);
            refuse_input(&file.metadata().with_context(failed)?, path, inputs)?;
            return Ok(Self { file, path: path.to_owned(), mode, state: State::Device });
        }
        if fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_char_device()) {
            let file = OpenOptions::new().write(true).open(path).with_context(failed)?;
            return Ok(Self { file, path: path.to_owned(), mode, state: State::Device });
        }
        if path.file_name().is_none() || path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(Failure::new(format!("{} names no file", path.display())).into());
        }
        check(path, inputs)?;
        let directory = directory_of(path);
        remove_leftovers(path);
        let unnamed = OpenOptions::new()
            .write(true)
            .mode(mode.unwrap_or(0o666))
            .custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC)
            .open(directory);
        if let Ok(file) = unnamed {
            return Ok(Self { file, path: path.to_owned(), mode, state: State::Unnamed });
        }
        let beside = beside(path);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode.unwrap_or(0o666))
            .open(&beside);
        let file = file.with_context(failed)?;
        Ok(Self { file, path: path.to_owned(), mode, state: State::Beside(beside) })
    }

    /// A second handle on the file, for a writer that keeps it.
    ///
    /// # Errors
    ///
    /// When the process has too many files open.
    pub fn handle(&self) -> Result<File> {
        self.file.try_clone().with_context(|| format!("cannot create {}", self.path.display()))
    }

    /// Puts the file at its path: another process finds the old one or this one, complete.
    ///
    /// # Errors
    ///
    /// When it cannot be stored or renamed; the old one stays then.
    pub fn finish(mut self) -> Result<()> {
        let failed = || format!("cannot write {}", self.path.display());
        if matches!(self.state, State::Device) {
            return self.file.flush().with_context(failed);
        }
        let old = fs::symlink_metadata(&self.path).ok().map(|old| old.permissions());
        if let Some(permissions) = self.mode.map(Permissions::from_mode).or(old) {
            self.file.set_permissions(permissions).with_context(failed)?;
        }
        self.file.sync_all().with_context(failed)?;
        if matches!(self.state, State::Unnamed) && !self.path.exists() {
            match link(&self.file, &self.path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                linked => return linked.with_context(failed),
            }
        }
        if matches!(self.state, State::Unnamed) {
            let beside = beside(&self.path);
            link(&self.file, &beside).with_context(failed)?;
            self.state = State::Beside(beside);
        }
        if let State::Beside(beside) = &self.state {
            fs::rename(beside, &self.path).with_context(failed)?;
        }
        self.state = State::Unnamed; // Nothing is left to remove.
        Ok(())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let State::Beside(beside) = &self.state {
            // Not finished: an error is reported by whoever stopped.
            let _ = fs::remove_file(beside);
        }
    }
}

/// The descriptor that `path` stands for: `/dev/stdout`, `/dev/fd/3`. It is written where it is, and
/// not opened again: that would start over at the beginning of its file.
fn open_descriptor(path: &Path) -> Option<RawFd> {
    match path.to_str()? {
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        name => {
            let number =
                ["/dev/fd/", "/proc/self/fd/"].iter().find_map(|d| name.strip_prefix(d))?;
            number.parse().ok().filter(|fd| *fd >= 0)
        }
    }
}

/// Refuses an output that is one of the inputs.
fn refuse_input(output: &fs::Metadata, path: &Path, inputs: &[PathBuf]) -> Result<(), Failure> {
    let is_same = |input: &PathBuf| {
        fs::metadata(input)
            .is_ok_and(|input| (input.dev(), input.ino()) == (output.dev(), output.ino()))
    };
    match output.is_file() && inputs.iter().any(is_same) {
        false => Ok(()),
        true => Err(Failure::new(format!("{} is both an input and the output", path.display()))
            .hint("write the result to another file")),
    }
}

fn check(path: &Path, inputs: &[PathBuf]) -> Result<(), Failure> {
    let Ok(there) = fs::symlink_metadata(path) else { return Ok(()) };
    let name = path.display();
    // A link to an input is told as that.
    refuse_input(&fs::metadata(path).unwrap_or_else(|_| there.clone()), path, inputs)?;
    match output::why_not(&there) {
        None => Ok(()),
        Some((what, hint)) => {
            Err(Failure::new(format!("cannot create {name}: it is {what}")).hint(hint))
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A name beside `path` that no other process uses: `.page.html.PID-RANDOM.part`.
fn beside(path: &Path) -> PathBuf {
    let mut name = prefix(path);
    name.push(format!("{}-{:08x}{SUFFIX}", std::process::id(), fastrand::u32(..)));
    path.with_file_name(name)
}

/// How names beside `path` end.
const SUFFIX: &str = ".part";

fn prefix(path: &Path) -> OsString {
    let mut name = OsString::from(".");
    // The longest name of a file has 255 bytes.
    let own = path.file_name().unwrap_or_default().as_bytes();
    name.push(OsStr::from_bytes(&own[..own.len().min(200)]));
    name.push(".");
    name
}

/// Removes what processes that are gone left beside `path`.
fn remove_leftovers(path: &Path) {
    let prefix = prefix(path);
    for entry in fs::read_dir(directory_of(path)).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name();
        let owner = name.as_bytes().strip_prefix(prefix.as_bytes()).and_then(|rest| {
            let rest = std::str::from_utf8(rest).ok()?.strip_suffix(SUFFIX)?;
            rest.split_once('-')?.0.parse::<u32>().ok()
        });
        let is_gone = |pid: &u32| !Path::new(&format!("/proc/{pid}")).exists();
        if owner.as_ref().is_some_and(is_gone) {
            // Another process may have been faster.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Gives an unnamed file its name.
fn link(file: &File, path: &Path) -> io::Result<()> {
    let from = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let to = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: both strings are valid and end in NUL.
    let result = unsafe {
        libc::linkat(
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            libc::AT_SYMLINK_FOLLOW,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn refused(path: &Path, inputs: &[PathBuf]) -> String {
        NewFile::create(path, inputs).err().unwrap().to_string()
    }

    #[test]
    fn the_old_file_stays_until_the_new_one_is_finished() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("page.html");
        fs::write(&path, "old").unwrap();
        let mut file = NewFile::create(&path, &[]).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        let mut file = NewFile::create(&path, &[]).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        file.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names(directory.path()), ["page.html"]);
    }

    #[test]
    fn leftovers_of_processes_that_are_gone_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("page.html");
        let own = format!(".page.html.{}-00000001.part", std::process::id());
        for name in
            [".page.html.4194305-0000000a.part", &own, ".page.html.x.part", ".other.1-1.part"]
        {
            fs::write(directory.path().join(name), "").unwrap();
        }
        NewFile::create(&path, &[]).unwrap().finish().unwrap();
        assert_eq!(
            names(directory.path()),
            [own.as_str(), ".other.1-1.part", ".page.html.x.part", "page.html"]
                .into_iter()
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn an_input_is_refused_by_whatever_name() {
        let directory = tempfile::tempdir().unwrap();
        let of = |name: &str| directory.path().join(name);
        fs::write(of("a.hlog"), "data").unwrap();
        fs::hard_link(of("a.hlog"), of("hard.hlog")).unwrap();
        std::os::unix::fs::symlink(of("a.hlog"), of("soft.hlog")).unwrap();
        for name in ["a.hlog", "hard.hlog", "soft.hlog"] {
            let error = refused(&of(name), &[of("a.hlog")]);
            assert!(error.ends_with("is both an input and the output"), "{error}");
        }
        assert!(refused(&of("soft.hlog"), &[]).ends_with("it is a symbolic link"));
        assert_eq!(fs::read_to_string(of("a.hlog")).unwrap(), "data");
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_devices_are_written() {
        let directory = tempfile::tempdir().unwrap();
        assert!(refused(directory.path(), &[]).ends_with("it is a directory"));
        let missing = directory.path().join("nosuch/x");
        assert!(refused(&missing, &[]).starts_with("cannot create"));
        let mut file = NewFile::create(Path::new("/dev/null"), &[]).unwrap();
        file.write_all(b"gone").unwrap();
        file.finish().unwrap();
        assert!(refused(Path::new("nosuch/"), &[]).ends_with("names no file"));
    }

    #[test]
    fn an_open_descriptor_is_written_where_it_is_unless_it_is_an_input() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "old ").unwrap();
        let log = OpenOptions::new().append(true).open(&path).unwrap();
        let name = PathBuf::from(format!("/dev/fd/{}", log.as_raw_fd()));
        let mut file = NewFile::create(&name, &[]).unwrap();
        file.write_all(b"new").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old new");
        let error = refused(&name, std::slice::from_ref(&path));
        assert!(error.ends_with("is both an input and the output"), "{error}");
        // It is no descriptor, whatever it starts with.
        let lexical = PathBuf::from(format!("/proc/self/fd/../cwd{}", path.display()));
        assert!(NewFile::create(&lexical, &[]).is_err());
    }

    #[test]
    fn the_mode_of_the_old_file_is_kept() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret.html");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        NewFile::create(&path, &[]).unwrap().finish().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
