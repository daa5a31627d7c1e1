//! Recordings that are kept: parts of the ring, joined, with a capture of the host beside them.
//!
//! The parts are links to segments, made when a recording is decided on: the ring may then forget
//! the segments. A recording appears under its name when it is complete.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};

use super::{request::Job, ring::Segment, shared::Shared};
use crate::{
    host::nic::ethtool::EthtoolDirectory,
    recording::{join, writer::Writer},
    triage::{self, SampleConfig},
};

/// Time between the two samples of a capture.
const CAPTURE: Duration = Duration::from_secs(1);

/// How long the command of `on-stall` may run.
pub const COMMAND_TIME: Duration = Duration::from_secs(60);

const RECORDING: &str = ".hlog";
const CAPTURED: &str = ".tar.gz";

/// The directory of the recordings.
pub fn directory(state: &Path) -> PathBuf {
    state.join("recordings")
}

/// The name of a recording of now, without an ending: none that is `taken`, nor one of a file.
pub fn name(state: &Path, host: &str, trigger: &str, taken: impl Fn(&str) -> bool) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let host: String = host.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let host = host.trim_start_matches('.');
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let now: String = now.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let name = format!("{host}-{now}-{trigger}");
    let directory = directory(state);
    let is_taken = |name: &str| {
        let files = [format!("{name}{RECORDING}"), format!("{name}{CAPTURED}"), parts_of(name)];
        taken(name) || files.iter().any(|file| directory.join(file).exists())
    };
    let more = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.clone()).chain(more);
    names.find(|name| !is_taken(name)).unwrap_or(name)
}

/// The directory of the parts of a recording.
fn parts_of(name: &str) -> String {
    format!(".{name}.parts")
}

/// Links to segments of the ring, in a directory of their own.
///
/// # Errors
///
/// When there is no segment, or a link cannot be made.
pub fn link(state: &Path, name: &str, segments: &[&Segment]) -> Result<(PathBuf, Vec<PathBuf>)> {
    if segments.is_empty() {
        bail!("nothing was kept yet");
    }
    let parts = directory(state).join(parts_of(name));
    let place = || format!("cannot make {}", parts.display());
    fs::create_dir_all(&parts).with_context(place)?;
    let mut links = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        let link = parts.join(format!("{at:06}{RECORDING}"));
        fs::hard_link(&segment.path, &link)
            .with_context(|| format!("cannot link {}", segment.path.display()))?;
        links.push(link);
    }
    Ok((parts, links))
}

/// Works until the daemon ends, and on what is left then.
pub fn work(shared: &Arc<Shared>, jobs: &mpsc::Receiver<Job>) {
    let is_running = Arc::new(AtomicBool::new(false));
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Capture { name } => {
                if let Err(error) = capture(&directory(&shared.config().state), &name) {
                    log::warn!("no capture {name}: {error:#}");
                }
            }
            Job::Join { parts, name, trigger, reason, reply } => {
                let written = write(&directory(&shared.config().state), &parts, &name);
                let mut metrics = shared.metrics();
                match &written {
                    Ok(path) => {
                        *metrics.recordings.entry(trigger.to_owned()).or_default() += 1;
                        drop(metrics);
                        log::info!("recording {}: {reason}", path.display());
                        forget(&directory(&shared.config().state), shared.config().keep);
                        run_command(&shared.config().on_stall, path, trigger, &reason, &is_running);
                    }
                    Err(error) => {
                        metrics.failed_recordings += 1;
                        drop(metrics);
                        log::warn!("no recording {name}: {error:#}");
                        forget_capture(&directory(&shared.config().state), &name);
                    }
                }
                if let Some(reply) = reply {
                    let _ = reply.send(written.map_err(|error| format!("{error:#}")));
                }
            }
        }
    }
}

/// Removes the capture of a recording that there is not.
fn forget_capture(directory: &Path, name: &str) {
    // There may be none.
    let _ = fs::remove_file(directory.join(format!("{name}{CAPTURED}")));
}

/// What an earlier run of the daemon has left unfinished: captures without their recording, too.
pub fn clean(state: &Path) {
    let directory = directory(state);
    let unfinished = fs::read_dir(&directory).into_iter().flatten().filter_map(|entry| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?;
        let is_alone = name
            .strip_suffix(CAPTURED)
            .is_some_and(|name| !directory.join(format!("{name}{RECORDING}")).exists());
        (name.starts_with('.') || is_alone).then_some(path)
    });
    for path in unfinished {
        let removed = match path.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        if let Err(error) = removed {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

fn write(
    directory: &Path,
    (parts, links): &(PathBuf, Vec<PathBuf>),
    name: &str,
) -> Result<PathBuf> {
    let unfinished = directory.join(format!(".{name}{RECORDING}"));
    let path = directory.join(format!("{name}{RECORDING}"));
    let joined = join::join(links, || Writer::create(&unfinished));
    let _ = fs::remove_dir_all(parts);
    let joined = joined.inspect_err(|_| drop(fs::remove_file(&unfinished)))?;
    for note in &joined.notes {
        log::warn!("{name}: {note}");
    }
    for error in &joined.unread {
        log::warn!("{name}: left out: {error}");
    }
    if joined.intervals == 0 {
        bail!("its time holds no interval");
    }
    fs::rename(&unfinished, &path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

fn capture(directory: &Path, name: &str) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let mut nics = EthtoolDirectory::new();
    let config = SampleConfig { duration: CAPTURE, trace: false, max_overhead: None, daemon: None };
    let host = triage::sample(Path::new("/"), &mut nics, &config);
    let unfinished = directory.join(format!(".{name}{CAPTURED}"));
    let path = directory.join(format!("{name}{CAPTURED}"));
    let file = crate::recording::output::open(&unfinished, crate::recording::output::PRIVATE)?;
    triage::save(&host, io::BufWriter::new(file))?;
    fs::rename(&unfinished, &path).with_context(|| format!("cannot make {}", path.display()))
}

/// The recordings in a directory, oldest first, with the bytes of each and its capture.
pub fn kept(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut kept: Vec<(SystemTime, PathBuf, u64)> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            let metadata = path.metadata().ok()?;
            let is_kept = name.ends_with(RECORDING) && !name.starts_with('.');
            (is_kept && metadata.is_file()).then_some((
                metadata.modified().ok()?,
                path.clone(),
                metadata.len() + path.with_extension("tar.gz").metadata().map_or(0, |m| m.len()),
            ))
        })
        .collect();
    kept.sort();
    kept.into_iter().map(|(_, path, bytes)| (path, bytes)).collect()
}

/// Removes the oldest recordings until number and bytes are within the limits. The last one of a day
/// goes only if the others were not enough.
fn forget(directory: &Path, (most, most_bytes): (usize, u64)) {
    let mut left = kept(directory);
    let day = |path: &Path| {
        let modified = path.metadata().and_then(|metadata| metadata.modified()).ok()?;
        let since = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(since.as_secs() / 86_400)
    };
    let mut days = BTreeSet::new();
    let is_last_of_day: Vec<bool> = {
        let mut flags: Vec<bool> =
            left.iter().rev().map(|(path, _)| days.insert(day(path))).collect();
        flags.reverse();
        flags
    };
    let mut order: Vec<usize> = (0..left.len()).filter(|at| !is_last_of_day[*at]).collect();
    order.extend((0..left.len()).filter(|at| is_last_of_day[*at]));
    let mut number = left.len();
    let mut bytes: u64 = left.iter().map(|(_, bytes)| bytes).sum();
    for at in order {
        // The newest one was just made.
        let is_newest = at + 1 == left.len();
        let is_too_much = bytes > most_bytes || (number > most && !is_last_of_day[at]);
        if is_newest || !is_too_much {
            continue;
        }
        let (path, size) = &mut left[at];
        for path in [path.clone(), path.with_extension("tar.gz")] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                log::warn!("cannot remove {}: {error}", path.display());
            }
        }
        (number, bytes) = (number - 1, bytes - *size);
    }
}

/// Runs the command of `on-stall`, and does not wait for it.
fn run_command(
    command: &[String],
    recording: &Path,
    trigger: &str,
    reason: &str,
    is_running: &Arc<AtomicBool>,
) {
    let Some((program, arguments)) = command.split_first() else { return };
    if is_running.swap(true, Ordering::SeqCst) {
        log::warn!("on-stall was not run for {}: it is still running", recording.display());
        return;
    }
    let started = Command::new(program)
        .args(arguments)
        .env("LATENCY_RECORDING", recording)
        .env("LATENCY_CAPTURE", recording.with_extension("tar.gz"))
        .env("LATENCY_TRIGGER", trigger)
        .env("LATENCY_REASON", reason)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn();
    let is_running = Arc::clone(is_running);
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            is_running.store(false, Ordering::SeqCst);
            log::warn!("on-stall: cannot run {program:?}: {error}");
            return;
        }
    };
    thread::spawn(move || {
        let end = Instant::now() + COMMAND_TIME;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(100)),
                _ => {
                    // SAFETY: signals a group of our own, whose leader was not waited for yet.
                    unsafe { libc::kill(-child.id().cast_signed(), libc::SIGKILL) };
                    let _ = child.wait();
                    break None;
                }
            }
        };
        match status {
            Some(status) if status.success() => {}
            Some(status) => log::warn!("on-stall ended with {status}"),
            None => log::warn!("on-stall was ended after {COMMAND_TIME:?}"),
        }
        is_running.store(false, Ordering::SeqCst);
    });
}
