//! `cargo xtask demo`: the tcp_collapse case in a private network namespace, traced.
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
const RECORDING: &str = "demo.hlog";
const PAGE: &str = "demo.html";

/// The child that signals are handed on to; 0 while there is none.
static TRACER: AtomicI32 = AtomicI32::new(0);
/// One bit for each signal number that was handed on.
static HANDED_ON: AtomicU64 = AtomicU64::new(0);

pub(crate) fn main() -> Result<ExitCode> {
    setup::ensure(setup::Level::Demo)?;
    let tracer = workspace::release_binary("latency-user", "latency-user")?;
    let load = workspace::release_binary(TESTS_PACKAGE, LOAD)?;

    process::step("tracing a TCP receiver that never reads, in a network namespace of its own");
    let mut command = process::as_root("unshare")?;
    command.args(["--net", "--"]).arg(&tracer);
    command.args(["trace", "--iface", "lo", "--output", RECORDING, "--"]).arg(load);
    command.current_dir(workspace::root());
    let recording = workspace::root().join(RECORDING);
    // An older one would look like this run's if the tracer never came to write.
    let _ = fs::remove_file(&recording);
    let status = wait_in_good_order(&mut command)?;

    if let Ok(about) = fs::metadata(&recording) {
        let kib = about.len().div_ceil(1024);
        process::step(&format!("the recording is {} ({kib} KiB)", recording.display()));
        let page = workspace::root().join(PAGE);
        let mut report = Command::new(&tracer);
        report.arg("report").arg(&recording).args(["--format", "html", "--output"]).arg(&page);
        process::run(&mut report)?;
        process::step(&format!("the page is {}", page.display()));
    }
    Ok(ExitCode::from(code(status)))
}

/// Runs the tracer to its own end: Ctrl-C and SIGTERM end the load, and the tracer still prints
/// its result; if this process is killed, the tracer is told to end.
fn wait_in_good_order(command: &mut Command) -> Result<ExitStatus> {
    process::die_with_parent(command, libc::SIGTERM);
    let mut signals = vec![libc::SIGTERM, libc::SIGHUP];
    if io::stdin().is_terminal() {
        // The terminal sends Ctrl-C to the tracer as well, and a second one would abort it.
        handle(libc::SIGINT, ignore)?;
    } else {
        // Then whoever started us may signal the whole group or this process alone: a group of
        // its own makes sure that the tracer hears of it once.
        command.process_group(0);
        signals.push(libc::SIGINT);
    }
    for signal in signals {
        handle(signal, hand_on)?;
    }
    let line = process::line(command);
    let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
    TRACER.store(child.id().cast_signed(), Ordering::Relaxed);
    let status = child.wait().with_context(|| format!("cannot wait for `{line}`"));
    TRACER.store(0, Ordering::Relaxed);
    status
}

/// Installs a handler, not `SIG_IGN`: the tracer would inherit the latter.
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
    let tracer = TRACER.load(Ordering::Relaxed);
    let bit = 1 << signal;
    // Once each: `timeout` signals its child and then the whole group, and twice means abort.
    if tracer > 0 && HANDED_ON.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
        // SAFETY: kill touches no memory of ours.
        unsafe { libc::kill(tracer, signal) };
    }
}

/// As a shell gives it: 128 + n for signal n.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}
