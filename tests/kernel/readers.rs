//! A reader that does not read stops nothing: not the recording, not the end, not the putting back.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use latency_tests::namespace;
use libtest_mimic::Trial;

use crate::{
    experiment::{CHANGED_FIRST, HARMLESS, experiment, journals, kill, rmem},
    suite::{Where, trial},
    tracing::{Tracing, latency_user, wait_until},
};

/// How long a process may take to end, on a machine that is slow at the moment.
const SOON: Duration = Duration::from_secs(20);

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let everywhere = |name, body| trial(name, Where::Everywhere, &[], body);
    [
        everywhere("readers::a_full_pipe_does_not_outlast_the_duration", duration),
        everywhere("readers::a_full_pipe_does_not_keep_signals_off", signals),
        everywhere("readers::a_halted_terminal_does_not_keep_signals_off", terminal),
        everywhere("readers::a_full_pipe_does_not_keep_a_setting_changed", setting),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A pipe that is full and never read. Both ends must be kept.
fn full_pipe() -> Result<(io::PipeReader, io::PipeWriter)> {
    let (reader, mut writer) = io::pipe()?;
    let pipe = writer.as_raw_fd();
    let set = |flags: libc::c_int| {
        // SAFETY: changes flags of a descriptor that is open.
        let result = unsafe { libc::fcntl(pipe, libc::F_SETFL, flags) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    set(libc::O_WRONLY | libc::O_NONBLOCK)?;
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    set(libc::O_WRONLY)?;
    Ok((reader, writer))
}

/// The end of a child that must end without being killed.
fn ended(child: &mut Child) -> Result<ExitStatus> {
    let end = Instant::now() + SOON;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("it did not end in {SOON:?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The recording has a summary, and the tracer has detached: the next one may start.
fn is_complete(recording: &Path) -> Result<()> {
    let text = fs::read_to_string(recording)?;
    let last = text.lines().last().unwrap_or_default();
    ensure!(last.contains("\"kind\":\"summary\""), "{last:?}");
    Tracing::start(&[])?.summary().map(drop)
}

fn is_measuring(recording: &Path) -> Result<()> {
    wait_until("the first interval", || {
        Ok(fs::read_to_string(recording).unwrap_or_default().contains("\"kind\":\"interval\""))
    })
}

fn duration() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let recording = directory.path().join("run.hlog");
    for format in ["json", "table"] {
        let (_reader, writer) = full_pipe()?;
        let messages = directory.path().join("messages");
        let mut child = latency_user()?
            .args(["trace", "--interval", "50ms", "--duration", "1s", "--format", format])
            .arg("--output")
            .arg(&recording)
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(File::create(&messages)?)
            .spawn()?;
        let status = ended(&mut child).context(format)?;
        let message = fs::read_to_string(messages)?;
        ensure!(
            status.code() == Some(1) && message.contains("nobody reads the output"),
            "{format}: {status}: {message}"
        );
        is_complete(&recording)?;
    }
    Ok(())
}

fn signals() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let recording = directory.path().join("run.hlog");
    for (signal, both) in [(libc::SIGINT, false), (libc::SIGTERM, true), (libc::SIGHUP, true)] {
        let _ = fs::remove_file(&recording);
        let (_reader, writer) = full_pipe()?;
        let stderr = if both { Stdio::from(writer.try_clone()?) } else { Stdio::null() };
        let mut child = latency_user()?
            .args(["trace", "--interval", "50ms", "--format", "json", "--output"])
            .arg(&recording)
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(stderr)
            .spawn()?;
        is_measuring(&recording)?;
        kill(child.id() as i32, signal)?;
        let status = ended(&mut child).with_context(|| format!("signal {signal}"))?;
        ensure!(status.code() == Some(1), "signal {signal}: {status}");
        is_complete(&recording)?;
    }
    Ok(())
}

/// The slave of a terminal whose output was halted (Ctrl-S), and its master.
fn halted_terminal() -> Result<(OwnedFd, OwnedFd)> {
    let (mut master, mut slave) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: both numbers are valid for the call, which needs neither name nor settings.
    let opened = unsafe {
        libc::openpty(&mut master, &mut slave, none, std::ptr::null_mut(), std::ptr::null_mut())
    };
    ensure!(opened == 0, "openpty: {}", io::Error::last_os_error());
    // SAFETY: two new descriptors, which nothing else owns.
    let (master, slave) = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    // SAFETY: the descriptor is open.
    let halted = unsafe { libc::tcflow(slave.as_raw_fd(), libc::TCOOFF) };
    ensure!(halted == 0, "tcflow: {}", io::Error::last_os_error());
    Ok((master, slave))
}

fn terminal() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let recording = directory.path().join("run.hlog");
    let (_master, slave) = halted_terminal()?;
    let mut child = latency_user()?
        .args(["trace", "--interval", "50ms", "--output"])
        .arg(&recording)
        .stdin(Stdio::null())
        .stdout(slave.try_clone()?)
        .stderr(slave)
        .spawn()?;
    is_measuring(&recording)?;
    kill(child.id() as i32, libc::SIGTERM)?;
    ended(&mut child)?;
    is_complete(&recording)
}

/// `experiment` while the setting is changed, with nobody reading what it says.
fn setting() -> Result<()> {
    namespace::run(|| {
        let before = rmem()?;
        for signal in [Some(libc::SIGTERM), None] {
            let directory = tempfile::tempdir()?;
            let (_reader, writer) = full_pipe()?;
            let mut child = experiment(directory.path(), HARMLESS)?
                .args(["--window", "1s", "--settle", "200ms", "--rounds", "1"])
                .args(CHANGED_FIRST)
                .stdin(Stdio::null())
                .stdout(writer.try_clone()?)
                .stderr(writer)
                .spawn()?;
            wait_until("the change", || Ok(rmem()? != before))?;
            if let Some(signal) = signal {
                kill(child.id() as i32, signal)?;
            }
            let status = ended(&mut child).with_context(|| format!("signal {signal:?}"))?;
            ensure!(status.code() == Some(1), "signal {signal:?}: {status}");
            ensure!(rmem()? == before, "signal {signal:?}: {}", rmem()?);
            ensure!(journals(directory.path()).is_empty(), "{:?}", journals(directory.path()));
            let page = directory.path().join("out/report.html");
            ensure!(page.exists() == signal.is_none(), "signal {signal:?}: {}", page.display());
        }
        Ok(())
    })
}
