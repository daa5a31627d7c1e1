//! `cargo xtask demo`: the tcp_collapse case in a private network namespace, and what mended it:
//! an experiment.
//!
//! Owns the order of its steps and that everything ends with it. The load sets up the namespace
//! it finds itself in; the namespace has no name and vanishes with its last process.

use std::{
    fs, io,
    io::IsTerminal,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitCode, ExitStatus},
    sync::atomic::{AtomicI32, AtomicU64, Ordering},
};

use anyhow::{Context, Result};

use crate::{
    process, setup,
    workspace::{self, TESTS_PACKAGE},
};

/// The program that brings about the collapse.
pub(crate) const LOAD: &str = "tcp-collapse-load";

/// Below the workspace's root.
const FOLDER: &str = "target/demo";
const PAGE: &str = "report.html";

/// The receive buffers that mended the case. The load begins with those of before.
const SETTING: &str = "sysctl:net.ipv4.tcp_rmem=4096 1048576 2097152";

const ABOUT: &str = "\
the case: TCP receivers stop reading, with receive buffers of up to 32 MiB
    (tcp_rmem 4096 5242880 33554432), beside a steady load. Does a maximum of
    2 MiB help? About a minute, in a network namespace of its own: no setting of
    this machine is touched. Ctrl-C ends it.";

/// The child that signals are handed on to; 0 while there is none.
static CHILD: AtomicI32 = AtomicI32::new(0);
/// One bit for each signal number that was handed on.
static HANDED_ON: AtomicU64 = AtomicU64::new(0);

pub(crate) fn main() -> Result<ExitCode> {
    setup::ensure(setup::Level::Demo)?;
    let tracer = workspace::release_binary("latency-user", "latency-user")?;
    let load = workspace::release_binary(TESTS_PACKAGE, LOAD)?;

    process::step(ABOUT);
    let folder = workspace::root().join(FOLDER);
    let mut command = process::as_root("unshare")?;
    command.args(["--net", "--"]).arg(load).arg("beside").arg(&tracer);
    // Connections of the load live for a second, with the buffers that they began with.
    command.args(["experiment", "--window", "9s", "--settle", "1500ms", "--rounds", "2"]);
    command.args(["--set", SETTING]);
    command.arg("--output").arg(&folder).arg("--state").arg(folder.join("state"));
    // An older one would look like this run's if the experiment never came to write.
    let page = folder.join(PAGE);
    let _ = fs::remove_file(&page);
    let status = wait_in_good_order(&mut command)?;
    if page.exists() {
        process::step(&format!("the page is {}", page.display()));
    }
    Ok(ExitCode::from(code(status)))
}

/// Runs the experiment to its end: Ctrl-C and SIGTERM have it put back what it changed, and its
/// load ends with it; so it is if this process is killed.
fn wait_in_good_order(command: &mut Command) -> Result<ExitStatus> {
    process::die_with_parent(command, libc::SIGTERM);
    let mut signals = vec![libc::SIGTERM, libc::SIGHUP];
    if io::stdin().is_terminal() {
        // The terminal sends Ctrl-C to the experiment as well.
        handle(libc::SIGINT, ignore)?;
    } else {
        // Then whoever started us may signal the whole group or this process alone: a group of
        // its own makes sure that the experiment hears of it once.
        command.process_group(0);
        signals.push(libc::SIGINT);
    }
    for signal in signals {
        handle(signal, hand_on)?;
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
    // SAFETY: both handlers touch nothing but an atomic and call nothing but kill, which is
    // allowed in a signal handler.
    let before = unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
    if before == libc::SIG_ERR {
        return Err(io::Error::last_os_error()).context("cannot handle signals");
    }
    Ok(())
}

extern "C" fn ignore(_: libc::c_int) {}

extern "C" fn hand_on(signal: libc::c_int) {
    let child = CHILD.load(Ordering::Relaxed);
    let bit = 1 << signal;
    // Once each: `timeout` signals its child and then the whole group.
    if child > 0 && HANDED_ON.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
        // SAFETY: kill touches no memory of ours.
        unsafe { libc::kill(child, signal) };
    }
}

/// As a shell gives it: 128 + n for signal n.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}
