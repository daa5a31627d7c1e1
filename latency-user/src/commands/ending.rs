//! How a run ends: signals, the traced command, the time.

use std::{
    env,
    ffi::OsString,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

use crate::model::failure::Failure;

/// How long a command that was asked to end may take before it is left alone.
const GRACE: Duration = Duration::from_secs(5);

/// Ctrl-C, SIGTERM and a lost terminal. The second Ctrl-C or SIGTERM ends the process at once.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes over the signals.
    ///
    /// # Errors
    ///
    /// When the kernel refuses handlers.
    pub fn new() -> Result<Self> {
        let take = |kind| signal(kind).context("install a signal handler");
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hang_up: take(SignalKind::hangup())?,
        })
    }

    /// Waits for the first signal.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
        for signal in [libc::SIGINT, libc::SIGTERM] {
            // SAFETY: restoring the default action of a signal touches no memory of ours.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}

/// Looks the program up before anything is attached.
///
/// # Errors
///
/// When `command` names no executable file, neither as a path nor in `PATH`.
pub fn find_program(command: &[OsString]) -> Result<(), Failure> {
    let Some(program) = command.first() else { return Ok(()) };
    let executable = |path: &Path| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let found = if program.to_string_lossy().contains('/') {
        executable(Path::new(program))
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).map(|folder: PathBuf| folder.join(program)).any(|p| executable(&p))
    };
    match found {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "command {:?} not found, or not executable",
            program.to_string_lossy()
        ))),
    }
}

/// Starts `command`; `None`: there is none.
///
/// # Errors
///
/// When the kernel refuses to run it.
pub fn start(command: &[OsString]) -> Result<Option<Child>> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    let child = Command::new(program)
        .args(arguments)
        .spawn()
        .with_context(|| format!("run {:?}", program.to_string_lossy()))?;
    Ok(Some(child))
}

/// Waits for the end of `child`; never ends when there is none.
pub async fn ended(child: &mut Option<Child>) -> std::io::Result<ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

/// Asks `child` to end and waits for a while; its exit status when it did.
pub async fn end(child: &mut Child) -> Option<ExitStatus> {
    let pid = child.id()?;
    // SAFETY: sends a signal to a child that was not waited for, so its id is still its own.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) };
    timeout(GRACE, child.wait()).await.ok()?.ok()
}

/// The exit status to pass on: the command's own, or 128 and the signal that ended it.
pub fn exit_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
