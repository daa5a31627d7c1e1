//! Cost of writing and reading recordings, compared with other HdrHistogram implementations that
//! decode the same file.
//!
//! CPU time, including process start, which every implementation pays.

use std::{
    fs, mem,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    bench::{built::Built, figures, plan::Plan, results::Results},
    process, workspace,
};

const BENCHMARK: &str = "Files: recordings, of CPU time";

/// A directory that is removed when this value is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let name = format!("bench-{}", std::process::id());
        let directory = workspace::root().join("target").join(name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(Self(directory))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left-over files in the target directory do no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Size of a file and number of its entries (one per series and interval).
struct Amount {
    mb: f64,
    series: f64,
}

pub(crate) fn run(built: &Built, plan: &Plan, results: &mut Results) -> Result<()> {
    let scratch = Scratch::new()?;
    let (series, intervals, rounds) = if plan.quick { (16, 5, 1) } else { (256, 60, 5) };
    let file = scratch.0.join("one.hlog");
    let mut writing = Vec::new();
    for _ in 0..rounds {
        let mut write = Command::new(&built.files);
        write.arg("write").arg(&file).args([series, intervals].map(|n: u32| n.to_string()));
        let outcome: Value = serde_json::from_str(&process::capture(&mut write)?)?;
        writing.push(outcome["seconds"].as_f64().context("no seconds of bench-files")?);
    }
    let mb = fs::metadata(&file)?.len() as f64 / 1e6;
    let amount = Amount { mb, series: f64::from(series * intervals) };
    rows("record", &amount, &writing, results);

    let other = scratch.0.join("other.hlog");
    fs::copy(&file, &other)?;
    let both = Amount { mb: 2.0 * amount.mb, series: 2.0 * amount.series };
    let merged = scratch.0.join("merged.hlog");
    let ours = |arguments: &[&str], files: &[&Path]| {
        let mut command = vec![built.latency_user.to_string_lossy().into_owned()];
        command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        command.extend(files.iter().map(|file| file.to_string_lossy().into_owned()));
        command
    };
    let merged_to = format!("--output={}", merged.display());
    let commands = [
        ("report --format json", ours(&["report", "--format", "json"], &[&file]), &amount),
        ("merge", ours(&["merge", &merged_to], &[&file, &other]), &both),
        ("compare", ours(&["compare"], &[&file, &other]), &both),
    ];
    for (name, command, amount) in commands {
        let seconds: Result<Vec<f64>> = (0..rounds).map(|_| cpu_seconds(&command)).collect();
        rows(name, amount, &seconds?, results);
    }
    results.check("merge wrote", fs::metadata(&merged).is_ok_and(|m| m.len() > 0), || {
        format!("{} is missing or empty", merged.display())
    });
    for (name, language) in [("Python hdrhistogram", "python"), ("hdr-histogram-js", "javascript")]
    {
        match foreign(built, language, &file, rounds) {
            Ok(seconds) => rows(name, &amount, &seconds, results),
            Err(error) => results.failed(BENCHMARK, name, format!("{error:#}")),
        }
    }
    Ok(())
}

/// Decodes `file` with another implementation, which is installed on first use.
fn foreign(built: &Built, language: &str, file: &Path, rounds: usize) -> Result<Vec<f64>> {
    let mut which = Command::new(&built.files);
    which.arg(language).env("CARGO_MANIFEST_DIR", workspace::root().join("tests"));
    let words = process::capture(&mut which)?;
    let mut command: Vec<String> = words.lines().map(str::to_owned).collect();
    command.push(file.to_string_lossy().into_owned());
    (0..rounds).map(|_| cpu_seconds(&command)).collect()
}

fn rows(name: &str, amount: &Amount, seconds: &[f64], results: &mut Results) {
    let per_second = |amount: f64| -> Vec<f64> { seconds.iter().map(|s| amount / s).collect() };
    results.row(BENCHMARK, name, "MB/s", figures::of(&per_second(amount.mb)));
    results.row(BENCHMARK, name, "series/s", figures::of(&per_second(amount.series)));
}

/// Runs a command to completion and returns the CPU time of it and its children.
fn cpu_seconds(words: &[String]) -> Result<f64> {
    let (program, arguments) = words.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    process::die_with_parent(&mut command, libc::SIGKILL);
    let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    let id = child.id().cast_signed();
    // SAFETY: an all-zero rusage is valid; the kernel writes to both variables, which outlive
    // the call; nobody else waits for this child.
    let (waited, status, usage) = unsafe {
        let (mut status, mut usage): (libc::c_int, libc::rusage) = (0, mem::zeroed());
        let waited = libc::wait4(id, &mut status, 0, &mut usage);
        (waited, status, usage)
    };
    ensure!(waited == id, "cannot wait for {program}: {}", std::io::Error::last_os_error());
    let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
    ensure!(code == Some(0), "{} failed", words.join(" "));
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_fail_are_errors() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(cpu_seconds(&words("true")).is_ok());
        assert!(cpu_seconds(&words("false")).unwrap_err().to_string().contains("false failed"));
    }
}
