//! Runs system tools to completion.

use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs `line` (words separated by spaces) and returns what it printed.
///
/// # Errors
///
/// When the tool is missing or fails; the error includes the tool's message.
pub fn run(line: &str) -> Result<String> {
    let mut words = line.split_ascii_whitespace();
    let program = words.next().context("no tool named")?;
    let output =
        Command::new(program).args(words).output().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("{line}: {}: {}", output.status, message.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether `program` is in `PATH`.
pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Runs a shell command.
///
/// # Errors
///
/// When it fails; the error includes its message.
pub fn shell(command: &str) -> Result<String> {
    let output = Command::new("bash").args(["-c", command]).output().context("run bash")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("{command}: {}: {}", output.status, message.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
