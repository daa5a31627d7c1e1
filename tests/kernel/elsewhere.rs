//! The program on a machine with other libraries, or none: in a directory with nothing else.

use std::{
    ffi::CString,
    fs,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::Path,
    process::{Command, Output, Stdio},
    ptr,
};

use anyhow::{Context, Result, ensure};
use latency_tests::{load, namespace};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    suite::{Where, trial},
    tracing::latency_user,
};

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    [trial("elsewhere::it_runs_in_a_directory_with_nothing_else", Where::Everywhere, &[], alone)]
        .into_iter()
        .flatten()
        .collect()
}

/// The program is the only file: it needs no library, no locale and no user database. With `/proc`
/// and `/sys` it traces.
fn alone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    fs::copy(latency_user()?.get_program(), root.join("latency-user"))
        .context("copy the program")?;

    let version = inside(root, &["--version"])?;
    ensure!(version.status.success(), "{version:?}: not static? Build it by `cargo xtask build`");
    let refused = inside(root, &["trace", "--duration", "1s"])?;
    let error = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && error.contains("/proc"), "{refused:?}");

    for name in ["proc", "sys", "tmp", "run"] {
        fs::create_dir(root.join(name))?;
    }
    let summary = namespace::run(|| {
        mount("proc", &root.join("proc"), 0)?;
        mount("sysfs", &root.join("sys"), 0)?;
        let traced = std::thread::scope(|scope| {
            let traced = scope.spawn(|| {
                let arguments = ["--duration", "2s", "--format", "json", "--output", "/tmp/r.hlog"];
                inside(root, &[&["trace"][..], &arguments[..]].concat())
            });
            load::udp(4001)?;
            traced.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        ensure!(traced.status.success(), "{traced:?}");
        let text = String::from_utf8(traced.stdout)?;
        Ok(serde_json::from_str::<Value>(text.lines().last().context("no summary")?)?)
    })?;
    ensure!(summary["ledger"]["balanced"] == true, "{}", summary["ledger"]);
    let read = inside(root, &["report", "/tmp/r.hlog", "--format", "html"])?;
    ensure!(read.status.success(), "{read:?}");
    ensure!(String::from_utf8_lossy(&read.stdout).contains("<html"), "no page");
    Ok(())
}

/// Runs the program with `root` as its root directory and nothing in its environment.
fn inside(root: &Path, arguments: &[&str]) -> Result<Output> {
    let path = CString::new(root.as_os_str().as_bytes())?;
    let mut command = Command::new("/latency-user");
    command.args(arguments).env_clear().stdin(Stdio::null());
    let enter = move || {
        // SAFETY: a NUL-terminated string; the call allocates nothing.
        match unsafe { libc::chroot(path.as_ptr()) } {
            0 => std::env::set_current_dir("/"),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes two system calls and takes no lock.
    unsafe { command.pre_exec(enter) };
    command.output().context("start the program in its own root")
}

fn mount(kind: &str, target: &Path, flags: libc::c_ulong) -> Result<()> {
    let kind = CString::new(kind)?;
    let target = CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: NUL-terminated strings, and no data. The mount is in a namespace of this thread.
    let mounted =
        unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, ptr::null()) };
    ensure!(mounted == 0, "mount {kind:?}: {}", std::io::Error::last_os_error());
    Ok(())
}
