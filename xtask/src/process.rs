//! Starts other programs, as root where needed. Announces long steps; errors show the complete
//! command.
//!
//! Knows nothing about particular programs.

use std::{
    ffi::OsStr,
    io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::build_ebpf;

/// Prints what the next step does.
pub(crate) fn step(what: &str) {
    eprintln!("==> {what}");
}

pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid takes no arguments, accesses no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// A command that runs `program` as root, through sudo unless this process is root.
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

/// The path of a program that `cargo xtask setup` installs.
pub(crate) fn need(program: &str) -> Result<PathBuf> {
    build_ebpf::find_program(program)
        .with_context(|| format!("{program} is missing: run `cargo xtask setup` to install it"))
}

/// Runs to completion with inherited output; fails unless the exit status is success.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// Runs to completion and returns standard output; the error includes standard error.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", line(command), output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes the kernel send `signal` to the child when this process dies, however it dies.
///
/// The kernel sends it when the thread that started the child exits, so start the child from the
/// main thread.
pub(crate) fn die_with_parent(command: &mut Command, signal: libc::c_int) {
    let set_signal = move || {
        // SAFETY: prctl with these arguments only sets an attribute of the calling process, and
        // is safe to call between fork and exec.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // SAFETY: the closure only calls prctl, which allocates nothing and takes no lock.
    unsafe { command.pre_exec(set_signal) };
}

/// Lets the child, and what it starts, run only while no other process wants the CPU.
pub(crate) fn only_when_idle(command: &mut Command) {
    let set_policy = || {
        let parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: changes an attribute of the calling process; the parameters live long enough.
        if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // SAFETY: the closure only makes a system call, which allocates nothing and takes no lock.
    unsafe { command.pre_exec(set_policy) };
}

/// The command as typed in a shell.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(show).collect::<Vec<_>>().join(" ")
}

fn show(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if word.contains(char::is_whitespace) { format!("'{word}'") } else { word.into_owned() }
}
