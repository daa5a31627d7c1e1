//! The file of a recording in progress: ours alone, whatever stands at its path. Also what any output
//! file must not replace.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use anyhow::{Context, Result};

use crate::model::failure::Failure;

/// The mode of files unless another is given: they hold names of processes, addresses of sockets.
pub const PRIVATE: u32 = 0o600;

/// Opens or creates the file without truncating it, and gives it `mode`.
///
/// # Errors
///
/// When it cannot be opened, or is something that another user may have put there: a symbolic link,
/// a FIFO, a file of another user, a file with a second name.
pub fn open(path: &Path, mode: u32) -> Result<File> {
    let failed = || format!("cannot create recording {}", path.display());
    if let Ok(there) = fs::symlink_metadata(path)
        && let Some((what, hint)) = why_not_in_place(&there)
    {
        return Err(refuse(path, what, hint));
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .with_context(failed)?;
    // What was opened may be another file than the one that was looked at.
    let opened = file.metadata().with_context(failed)?;
    if let Some((what, hint)) = why_not_in_place(&opened) {
        return Err(refuse(path, what, hint));
    }
    if opened.is_file() {
        file.set_permissions(fs::Permissions::from_mode(mode)).with_context(failed)?;
    }
    Ok(file)
}

fn refuse(path: &Path, what: &str, hint: &str) -> anyhow::Error {
    Failure::new(format!("cannot create recording {}: it is {what}", path.display()))
        .hint(hint)
        .into()
}

/// Why a file is not written where it is, with what to do; `None`: it is.
fn why_not_in_place(file: &fs::Metadata) -> Option<(&'static str, &'static str)> {
    why_not(file).or_else(|| {
        let has_names = file.is_file() && file.nlink() > 1;
        has_names.then_some(("a file with several names", ANOTHER))
    })
}

/// Whether a file belongs to the user of this process.
pub fn is_ours(file: &fs::Metadata) -> bool {
    // SAFETY: takes no arguments, accesses no memory and cannot fail.
    file.uid() == unsafe { libc::geteuid() }
}

const ANOTHER: &str = "remove it, or name another file";

/// Why a file is not replaced by an output, with what to do; `None`: it is.
pub fn why_not(file: &fs::Metadata) -> Option<(&'static str, &'static str)> {
    let kind = file.file_type();
    if kind.is_symlink() {
        Some(("a symbolic link", "name the file that it points to"))
    } else if kind.is_dir() {
        Some(("a directory", "name a file in it"))
    } else if kind.is_char_device() {
        None
    } else if !kind.is_file() {
        Some(("no regular file", "name a regular file"))
    } else if !is_ours(file) {
        Some(("a file of another user", ANOTHER))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::CString, os::unix::ffi::OsStrExt};

    use super::*;

    fn refusal(path: &Path) -> String {
        open(path, PRIVATE).err().unwrap().to_string()
    }

    #[test]
    fn what_others_may_have_put_there_is_refused_and_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(refusal(&link).ends_with("it is a symbolic link"), "{}", refusal(&link));
        let dangling = directory.path().join("dangling");
        std::os::unix::fs::symlink(directory.path().join("new"), &dangling).unwrap();
        assert!(refusal(&dangling).ends_with("it is a symbolic link"));
        let fifo = directory.path().join("fifo");
        let name = CString::new(fifo.as_os_str().as_bytes()).unwrap();
        // SAFETY: the string is valid and ends in NUL.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o666) }, 0);
        assert!(refusal(&fifo).ends_with("it is no regular file"));
        let second = directory.path().join("second");
        fs::hard_link(&victim, &second).unwrap();
        assert!(refusal(&second).ends_with("it is a file with several names"));
        assert!(refusal(directory.path()).ends_with("it is a directory"));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert!(!directory.path().join("new").exists());
    }

    #[test]
    fn it_has_its_mode_new_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.hlog");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        for mode in [PRIVATE, 0o640] {
            open(&path, mode).unwrap();
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, mode);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        open(Path::new("/dev/null"), PRIVATE).unwrap();
    }
}
