//! `cargo xtask demo`: runs an experiment that reproduces the tcp_collapse case in a private
//! network namespace and tests its fix.
//!
//! Owns the order of the steps and the cleanup. The load configures the namespace in which it is
//! started; the namespace has no name and disappears with its last process.

use std::{
    fs, io,
    io::IsTerminal,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus},
    sync::atomic::{AtomicI32, AtomicU64, Ordering},
};

use anyhow::{Context, Result};

use crate::{
    build, process, setup,
    workspace::{self, TESTS_PACKAGE},
};

/// The program that causes the collapses.
pub(crate) const LOAD: &str = "tcp-collapse-load";

/// Relative to the workspace root.
const DIRECTORY: &str = "target/demo";
const PAGE: &str = "report.html";

/// The receive buffers that fixed the case. The load starts with the original ones.
const SETTING: &str = "sysctl:net.ipv4.tcp_rmem=4096 1048576 2097152";

const ABOUT: &str = "\
the case: TCP receivers stop reading, with receive buffers of up to 32 MiB
    (tcp_rmem 4096 5242880 33554432), next to a steady load. Does a maximum of
    2 MiB help? Takes a minute or less, in a private network namespace: no setting
    of this machine is changed. Press Ctrl-C to stop.";

/// Process id of the child to which signals are forwarded; 0: no child.
static CHILD: AtomicI32 = AtomicI32::new(0);
/// Bitmask of the signal numbers that were forwarded.
static FORWARDED: AtomicU64 = AtomicU64::new(0);

/// The page that the demo writes.
pub(crate) fn page(workspace: &Path) -> PathBuf {
    workspace.join(DIRECTORY).join(PAGE)
}

pub(crate) fn main() -> Result<ExitCode> {
    setup::ensure(setup::Level::Demo)?;
    let tracer = build::release_binary("latency-user", "latency-user")?;
    let load = build::release_binary(TESTS_PACKAGE, LOAD)?;

    process::step(ABOUT);
    let directory = workspace::root().join(DIRECTORY);
    let mut command = process::as_root("unshare")?;
    command.args(["--net", "--"]).arg(load).arg("beside").arg(&tracer);
    // Connections of the load last a second and keep the buffers that they were opened with.
    command.args(["experiment", "--window", "3s", "--settle", "1500ms", "--rounds", "8"]);
    // Those of the case take 16 ms and more; a shared machine's hypervisor makes shorter ones.
    command.args(["--threshold", "4ms", "--set", SETTING]);
    command.arg("--output").arg(&directory).arg("--state").arg(directory.join("state"));
    // Otherwise an old page would pass for this run's if the experiment failed before writing it.
    let page = page(&workspace::root());
    let _ = fs::remove_file(&page);
    let status = run_to_completion(&mut command)?;
    if page.exists() {
        process::step(&format!("report: {}", page.display()));
    }
    Ok(ExitCode::from(code(status)))
}

/// Runs the experiment to completion. On Ctrl-C and SIGTERM, and if this process is killed, it
/// restores its changes and its load ends with it.
fn run_to_completion(command: &mut Command) -> Result<ExitStatus> {
    process::die_with_parent(command, libc::SIGTERM);
    let mut signals = vec![libc::SIGTERM, libc::SIGHUP];
    if io::stdin().is_terminal() {
        // The terminal sends SIGINT on Ctrl-C to the experiment too.
        handle(libc::SIGINT, ignore)?;
    } else {
        // The parent may signal either our process group or only this process. With its own
        // process group the experiment gets the signal exactly once.
        command.process_group(0);
        signals.push(libc::SIGINT);
    }
    for signal in signals {
        handle(signal, forward)?;
    }
    let line = process::line(command);
    let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
    CHILD.store(child.id().cast_signed(), Ordering::Relaxed);
    let status = child.wait().with_context(|| format!("cannot wait for `{line}`"));
    CHILD.store(0, Ordering::Relaxed);
    status
}

/// Installs a handler, not `SIG_IGN`: the experiment would inherit the latter.
fn handle(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) -> Result<()> {
    // SAFETY: the handlers only access atomics and call kill, which is async-signal-safe.
    let before = unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
    if before == libc::SIG_ERR {
        return Err(io::Error::last_os_error()).context("cannot handle signals");
    }
    Ok(())
}

extern "C" fn ignore(_: libc::c_int) {}

extern "C" fn forward(signal: libc::c_int) {
    let child = CHILD.load(Ordering::Relaxed);
    let bit = 1 << signal;
    // Forward each signal once: `timeout` signals its child and then the process group.
    if child > 0 && FORWARDED.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
        // SAFETY: kill accesses no memory of this process.
        unsafe { libc::kill(child, signal) };
    }
}

/// Exit status as a shell reports it: 128 + n for signal n.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}
