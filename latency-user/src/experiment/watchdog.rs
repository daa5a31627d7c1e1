//! The watchdog: a process that waits for the experiment to end and puts the setting back if it
//! ended without dismissing the watchdog.
//!
//! It is another process of this program, in its own session, and ignores the signals that a
//! terminal or a service manager sends to all processes. The end of the pipe between the two shows
//! that the experiment died, whatever the cause.

use std::{
    env,
    io::{Read, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::{
    change::RestoreFailure,
    journal::{Journal, JournalDirectory},
};

/// The hidden command that a watchdog is started with.
pub const COMMAND: &str = "watch-experiment";

/// A running watchdog.
pub struct Watchdog {
    child: Child,
}

impl Watchdog {
    /// Starts a watchdog for `journal` and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When the watchdog cannot be started.
    pub fn start(directory: &JournalDirectory, journal: &Journal) -> Result<Self> {
        let program = env::current_exe().context("find this program")?;
        let mut command = Command::new(program);
        command.arg(COMMAND).arg(directory.path()).arg(journal.name());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: setsid takes nothing, touches no memory and may be called after fork.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                Ok(())
            });
        }
        let mut child = command.spawn().context("start the watchdog")?;
        let mut ready = [0];
        let stdout = child.stdout.as_mut().context("the watchdog's output")?;
        let read = stdout.read(&mut ready).context("wait for the watchdog")?;
        ensure!(read == 1, "the watchdog exited immediately");
        Ok(Self { child })
    }

    /// Dismisses the watchdog: nothing is left to put back.
    ///
    /// # Errors
    ///
    /// When the watchdog is no longer running.
    pub fn dismiss(mut self) -> Result<()> {
        let mut stdin = self.child.stdin.take().context("the watchdog's input")?;
        stdin.write_all(b".").context("dismiss the watchdog")?;
        drop(stdin);
        self.child.wait().context("wait for the watchdog")?;
        Ok(())
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Not dismissed, the watchdog puts back what is still changed.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Runs as the watchdog: reports on `ready` that it is ready, then waits for the end of `alive`.
/// Returns what could not be put back.
///
/// # Errors
///
/// When the journal cannot be removed.
pub fn watch(
    directory: &Path,
    name: &str,
    ready: &mut dyn Write,
    alive: &mut dyn Read,
) -> Result<Vec<RestoreFailure>> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE] {
        // SAFETY: ignoring a signal touches no memory.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    ready
        .write_all(b".")
        .and_then(|()| ready.flush())
        .context("report that the watchdog is ready")?;
    let mut dismissal = [0];
    if alive.read(&mut dismissal).unwrap_or(0) == 1 {
        return Ok(Vec::new());
    }
    let Some(journal) = JournalDirectory::new(directory).take(name) else { return Ok(Vec::new()) };
    let failures = match &journal.entry {
        Some(entry) => entry.restore(),
        None if journal.is_torn => Vec::new(),
        // Of another version, or unreadable: it stays for `--undo`, which reports it.
        None => return Ok(Vec::new()),
    };
    if failures.is_empty() {
        journal.done()?;
    }
    Ok(failures)
}
