//! The load of the case study, in a network namespace of its own.
//!
//! `tcp-collapse-load [SECONDS]`: single bytes to a TCP receiver that never reads.
//! `tcp-collapse-load beside COMMAND...`: while the command runs, a proxy at a steady rate, one of
//! whose two receivers has stopped reading.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use latency_tests::{load, namespace, proxy, tool};

/// Maximum, in seconds. More would only use more memory.
const LONGEST: u64 = 60;

fn main() -> Result<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    let first = arguments.next();
    if first.as_deref().is_some_and(|first| first == "beside") {
        return beside(&arguments.collect::<Vec<_>>());
    }
    let seconds = match first {
        Some(seconds) => seconds
            .to_str()
            .and_then(|seconds| seconds.parse().ok())
            .with_context(|| format!("seconds: {seconds:?}"))?,
        None => 8,
    };
    ensure!((1..=LONGEST).contains(&seconds), "seconds: {seconds}, expected 1 to {LONGEST}");
    load::tcp_collapse(load::LARGE_RMEM, Duration::from_secs(seconds), || false)?;
    Ok(ExitCode::SUCCESS)
}

/// PID of the command. Signals are forwarded to it, and the load ends with it.
static COMMAND: AtomicI32 = AtomicI32::new(0);

extern "C" fn forward(signal: libc::c_int) {
    // SAFETY: kill touches no memory.
    unsafe { libc::kill(COMMAND.load(Ordering::Relaxed), signal) };
}

/// Runs the load while a command runs, and returns the command's exit status.
fn beside(command: &[OsString]) -> Result<ExitCode> {
    ensure!(namespace::is_private()?, "this load runs only in a network namespace of its own");
    let (program, arguments) = command.split_first().context("no command")?;
    fs::write("/proc/sys/net/ipv4/tcp_rmem", load::LARGE_RMEM).context("set tcp_rmem")?;
    tool::run("ip link set lo up")?;
    let mut command = Command::new(program);
    command.args(arguments);
    // SAFETY: prctl touches no memory and may be called after fork.
    unsafe {
        command.pre_exec(|| {
            // If the load is killed, the command ends too.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
    let mut child = command.spawn().with_context(|| format!("run {program:?}"))?;
    COMMAND.store(child.id().cast_signed(), Ordering::Relaxed);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler calls nothing but kill, which is allowed there.
        unsafe { libc::signal(signal, forward as *const () as libc::sighandler_t) };
    }
    let over = AtomicBool::new(false);
    let (loaded, status) = thread::scope(|scope| {
        let loaded = scope.spawn(|| proxy::run(&|| over.load(Ordering::Relaxed)));
        let status = child.wait();
        over.store(true, Ordering::Relaxed);
        (loaded.join(), status)
    });
    loaded.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let code = status?.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}
