//! Starting other programs: as root where needed, with a line that says what runs, and with
//! errors that show the whole command.
//!
//! Owns no knowledge of any particular program.

use std::{
    ffi::OsStr,
    io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::build_ebpf;

/// Says what a long step is about to do.
pub(crate) fn step(what: &str) {
    eprintln!("==> {what}");
}

pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// A command that runs `program` with root's rights: through sudo unless we are root already.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let Some(sudo) = build_ebpf::find_program("sudo") else {
        bail!("root is needed for {} and sudo is missing: run as root", show(program.as_ref()));
    };
    let mut command = Command::new(sudo);
    command.arg("--").arg(program);
    Ok(command)
}

/// The path of a program that the set-up brings.
pub(crate) fn need(program: &str) -> Result<PathBuf> {
    build_ebpf::find_program(program)
        .with_context(|| format!("{program} is missing: run `cargo xtask setup` to install it"))
}

/// Runs to the end, output shown as it comes; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// Runs to the end and returns standard output; the error carries standard error.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", line(command), output.status, words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Has the kernel send `signal` to the child when this process dies, however it dies.
///
/// The kernel watches the thread that starts the child, so start it from the main thread.
pub(crate) fn die_with_parent(command: &mut Command, signal: libc::c_int) {
    let death = move || {
        // SAFETY: prctl with these arguments only sets an attribute of the calling process, and
        // is safe to call between fork and exec.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // SAFETY: the closure calls prctl alone, which allocates nothing and takes no lock.
    unsafe { command.pre_exec(death) };
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(show).collect::<Vec<_>>().join(" ")
}

fn show(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if word.contains(char::is_whitespace) { format!("'{word}'") } else { word.into_owned() }
}
