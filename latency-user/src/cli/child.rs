//! The traced command: found before anything is attached, then started, awaited and terminated.

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
    time::timeout,
};

use crate::model::failure::Failure;

/// Time to wait for a command after SIGTERM before it is left alone.
const GRACE: Duration = Duration::from_secs(5);

/// Checks that the program exists, before anything is attached.
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
        env::split_paths(&path)
            .map(|directory: PathBuf| directory.join(program))
            .any(|p| executable(&p))
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
pub fn spawn(command: &[OsString]) -> Result<Option<Child>> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    let child = Command::new(program)
        .args(arguments)
        .spawn()
        .with_context(|| format!("run {:?}", program.to_string_lossy()))?;
    Ok(Some(child))
}

/// Waits for the end of `child`; waits forever when there is none.
pub async fn exited(child: &mut Option<Child>) -> std::io::Result<ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

/// Sends SIGTERM to `child` and waits up to [`GRACE`]; its exit status if it ended.
pub async fn terminate(child: &mut Child) -> Option<ExitStatus> {
    let pid = child.id()?;
    // SAFETY: sends a signal to a child that was not reaped, so its pid was not reused.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) };
    timeout(GRACE, child.wait()).await.ok()?.ok()
}

/// The exit status to pass on: the command's own, or 128 plus the signal that ended it.
pub fn exit_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
