//! Runs code in network namespaces, each time in a new thread: `/proc/sys/net` shows the reader's
//! namespace, `/sys/class/net` the one in which it was mounted.

use std::{
    ffi::CStr,
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    ptr, thread,
};

use anyhow::{Context, Result};
use caps::{CapSet, Capability};

use crate::{host::kernel, model::failure::Failure};

/// Where `ip netns` keeps named namespaces.
const NAMED: &str = "/run/netns";

/// The inode of the namespace of `NAME|PID`; `None`: of this thread's namespace.
///
/// # Errors
///
/// When there is no such namespace, or this process may not access it.
pub fn resolve(asked: Option<&str>) -> Result<u32> {
    let Some(asked) = asked else { return kernel::own_netns(Path::new("/")) };
    let named = Path::new(NAMED).join(asked);
    let of_process = PathBuf::from(format!("/proc/{asked}/ns/net"));
    let is_name = !asked.is_empty() && !asked.contains('/') && asked != "." && asked != "..";
    let path = [named, of_process].into_iter().find(|path| is_name && path.exists());
    let Some(path) = path else {
        let failure = Failure::new(format!("no network namespace or process {asked:?}"));
        return Err(failure.hint("`ip netns list` names them").into());
    };
    inode(&path)
}

/// Runs `body` inside the namespace with this inode; `None`: in this thread's namespace. With
/// `with_sys`, `/sys` shows that namespace.
///
/// # Errors
///
/// When the namespace is gone or may not be entered, or `body` fails.
pub fn within<T: Send>(
    netns: Option<u32>,
    with_sys: bool,
    body: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let Some(netns) = netns else { return body() };
    let other = if kernel::own_netns(Path::new("/"))? == netns { None } else { Some(find(netns)?) };
    if other.is_none() && !with_sys {
        return body();
    }
    // Only the spawned thread changes its namespaces, and it ends after `body`.
    thread::scope(|scope| {
        let visit = scope.spawn(|| {
            if let Some(path) = &other {
                enter(path)?;
            }
            if with_sys {
                mount_sys()?;
            }
            body()
        });
        visit.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether a process or a name still refers to the namespace.
pub fn exists(netns: u32) -> bool {
    kernel::own_netns(Path::new("/")).is_ok_and(|own| own == netns) || find(netns).is_ok()
}

/// A file that refers to the namespace with this inode.
fn find(netns: u32) -> Result<PathBuf> {
    let entries =
        |directory: &str| fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let named = entries(NAMED).map(|entry| entry.path());
    let processes = entries("/proc").map(|entry| entry.path().join("ns/net"));
    let found = named.chain(processes).find(|path| inode(path).is_ok_and(|inode| inode == netns));
    found.with_context(|| format!("network namespace {netns} is gone"))
}

fn inode(path: &Path) -> Result<u32> {
    let inode = fs::metadata(path).with_context(|| format!("stat {}", path.display()))?.ino();
    u32::try_from(inode).with_context(|| format!("{}: inode {inode}", path.display()))
}

fn enter(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    // SAFETY: changes the network namespace of this thread only; no memory is touched.
    let entered = check(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) });
    entered.map_err(|error| refused(&format!("enter {}", path.display()), &error))
}

/// Gives this thread a `/sys` of its own that shows its network namespace.
fn mount_sys() -> Result<()> {
    // SAFETY: only this thread changes its mount namespace; no memory is touched.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })
        .map_err(|error| refused("make a mount namespace", &error))?;
    // Without this, the mount of /sys would propagate to the host.
    mount(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE).context("make mounts private")?;
    match mount(c"sysfs", c"/sys", c"sysfs", 0) {
        // The kernel does not mount the same file system on top of itself: /sys shows this
        // namespace already.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        other => other.context("mount the namespace's /sys"),
    }
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: three NUL-terminated strings, and no data.
    check(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, ptr::null())
    })
}

/// Names the capability if that is what is missing.
fn refused(what: &str, error: &io::Error) -> anyhow::Error {
    let has = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN);
    match error.raw_os_error() {
        Some(libc::EPERM) if !has.unwrap_or(false) => Failure::unsupported(format!(
            "CAP_SYS_ADMIN is missing: cannot {what}, where the settings of the network are"
        ))
        .hint("run it as root (sudo)")
        .into(),
        _ => Failure::new(format!("cannot {what}: {error}")).into(),
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_or_nothing_are_refused() {
        for asked in ["", ".", "..", "../x", "/proc/1/ns/net", "no-such-namespace"] {
            assert!(resolve(Some(asked)).is_err(), "{asked}");
        }
    }

    #[test]
    fn a_pid_resolves_to_its_namespace() {
        let own = resolve(None).unwrap();
        assert_eq!(resolve(Some(&std::process::id().to_string())).unwrap(), own);
        assert!(exists(own) && !exists(1));
        assert_eq!(within(Some(own), false, || Ok(7)).unwrap(), 7);
    }
}
