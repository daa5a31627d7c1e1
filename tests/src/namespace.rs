//! A private network namespace for one thread, with a matching `/sys`.

use std::{ffi::CString, io, ptr, thread};

use anyhow::{Context, Result, anyhow, ensure};

use crate::tool;

/// Runs `body` in a thread with its own network namespace and its own view of `/sys`.
///
/// Processes that `body` starts share both. The namespace ends with the last of them.
///
/// # Errors
///
/// When the kernel refuses the namespaces (root is needed), or what `body` fails with.
///
/// # Panics
///
/// As `body` does.
pub fn run<T: Send>(body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter()?;
            body()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether this thread's network is separate from the machine's: its namespace is not that of the
/// process's first thread, or has no device but loopback.
///
/// A comparison with the namespace of PID 1 would be better, but reading it needs a capability that
/// root in a container lacks.
///
/// # Errors
///
/// When `/proc` cannot be read.
pub fn is_private() -> Result<bool> {
    let inode = |who: &str| {
        let path = format!("/proc/{who}/ns/net");
        std::fs::read_link(&path).with_context(|| format!("read {path}"))
    };
    let path = "/proc/thread-self/net/dev";
    let devices = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let mut names = devices.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name);
    Ok(inode("thread-self")? != inode("self")? || names.all(|name| name.trim() == "lo"))
}

fn enter() -> Result<()> {
    // SAFETY: only this thread changes its namespaces; no memory is touched.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) })
        .context("create namespaces")?;
    // Without this the mount of /sys would propagate to the machine.
    mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE).context("make mounts private")?;
    mount("sysfs", "/sys", "sysfs", 0).context("mount the namespace's /sys")?;
    // The new /sys hides mounts below the old one; bpftrace needs the tracepoint formats.
    mount("tracefs", "/sys/kernel/tracing", "tracefs", 0).context("mount tracefs")?;
    mount("debugfs", "/sys/kernel/debug", "debugfs", 0).context("mount debugfs")?;
    ensure!(is_private()?, "the network namespace is not a new one");
    // Avoids router solicitations and other traffic that no test sent.
    for scope in ["all", "default"] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
    }
    tool::run("ip link set lo up")?;
    Ok(())
}

fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong) -> Result<()> {
    let text = |text| CString::new(text).map_err(|error| anyhow!("{error}"));
    let (source, target, kind) = (text(source)?, text(target)?, text(kind)?);
    // SAFETY: three NUL-terminated strings, and no data.
    check(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, ptr::null())
    })
}

fn check(result: libc::c_int) -> Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error().into()) }
}
