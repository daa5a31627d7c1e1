//! A private mount namespace with the directories in which the baselines expect tracepoints. It
//! ends with this process and its children.

use std::{ffi::CString, io, path::Path, ptr};

use anyhow::{Context, Result};

const TRACEPOINTS: [(&str, &str, &str); 2] =
    [("tracefs", "/sys/kernel/tracing", "events"), ("debugfs", "/sys/kernel/debug", "tracing")];

/// Mounts what is missing for this process only; the machine's own mounts do not change.
pub(crate) fn make_private() -> Result<()> {
    // SAFETY: called before any thread is started; no memory is touched.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }).context("cannot make private mounts")?;
    mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE)?;
    for (kind, directory, entry) in TRACEPOINTS {
        if !Path::new(directory).join(entry).exists() {
            mount(kind, directory, kind, 0)?;
        }
    }
    Ok(())
}

fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong) -> Result<()> {
    let text = |text: &str| CString::new(text).context("path with a NUL byte");
    let (source, path, kind) = (text(source)?, text(target)?, text(kind)?);
    // SAFETY: three NUL-terminated strings that outlive the call, and no data.
    check(unsafe { libc::mount(source.as_ptr(), path.as_ptr(), kind.as_ptr(), flags, ptr::null()) })
        .with_context(|| format!("cannot mount {target}"))
}

fn check(result: libc::c_int) -> Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error().into()) }
}
