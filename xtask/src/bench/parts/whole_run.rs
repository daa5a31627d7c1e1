//! One run of ours from its start to its end: how long until it is attached, how long until it
//! has ended, its CPU time and its memory.
//!
//! Attached is when the last of its links has appeared among its descriptors.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    bench::{
        Built, Plan,
        contenders::ours,
        figures, goals,
        results::Results,
        tracer::{Said, Tracer},
    },
    process,
};

const PART: &str = "User space: one run from start to end";

/// No link comes later than that after another.
const QUIET: Duration = Duration::from_millis(400);
/// How often is looked for links.
const LOOK: Duration = Duration::from_micros(500);
const PATIENCE: Duration = Duration::from_secs(60);

/// Figures of one run.
struct Run {
    startup_ms: f64,
    startup_cpu_ms: f64,
    stop_ms: f64,
    beside_rows_mb: f64,
    peak_beside_rows_mb: f64,
    rows_mb: f64,
}

pub(crate) fn run(built: &Built, plan: &Plan, results: &mut Results) -> Result<()> {
    let mut runs = Vec::new();
    for number in 0..plan.rounds {
        process::step(&format!("{PART}: {} of {}", number + 1, plan.rounds));
        runs.push(once(built)?);
    }
    let of = |value: fn(&Run) -> f64| figures::of(&runs.iter().map(value).collect::<Vec<_>>());
    let name = ours::EVERYTHING;
    let (startup, peak) = (of(|run| run.startup_ms), of(|run| run.peak_beside_rows_mb));
    results.row(PART, name, "attached, ms", startup);
    results.row(PART, name, "its CPU, ms", of(|run| run.startup_cpu_ms));
    results.row(PART, name, "stopped, ms", of(|run| run.stop_ms));
    results.row(PART, name, "rows, MB", of(|run| run.rows_mb));
    results.row(PART, name, "beside them, MB", of(|run| run.beside_rows_mb));
    results.row(PART, name, "peak beside, MB", peak);
    results.check("memory was read", runs.iter().all(|run| run.rows_mb > 0.0), || {
        "no rows in /proc/PID/smaps".to_owned()
    });
    results.goal(&goals::STARTUP, startup);
    results.goal(&goals::MEMORY, peak);
    Ok(())
}

fn once(built: &Built) -> Result<Run> {
    let contender = ours::contender(built, ours::EVERYTHING, "--interval 1s");
    let began = Instant::now();
    let mut tracer = Tracer::spawn(&mut contender.command()?)?;
    let directory = PathBuf::from("/proc").join(tracer.id().to_string());
    let attached = last_link(&directory, began)?;
    let startup_cpu_ms = tracer.cpu_ms()?;
    // Past the first snapshot, whose memory counts as well.
    thread::sleep(Duration::from_millis(1200).saturating_sub(began.elapsed() - attached));
    let smaps = read(&directory.join("smaps"))?;
    let status = read(&directory.join("status"))?;
    let (rows, others) = resident_kb(&smaps);
    let peak = field_kb(&status, "VmHWM").context("no VmHWM in /proc/PID/status")?;

    let interrupted = Instant::now();
    tracer.interrupt();
    let Said { stdout, .. } = tracer.wait()?;
    let stop_ms = interrupted.elapsed().as_secs_f64() * 1000.0;
    ensure!(stdout.contains(r#""kind":"summary""#), "latency-user ended without a summary");
    let mb = |kb: u64| kb as f64 * 1024.0 / 1e6;
    Ok(Run {
        startup_ms: attached.as_secs_f64() * 1000.0,
        startup_cpu_ms,
        stop_ms,
        beside_rows_mb: mb(others),
        // The peak lies in the start-up, before rows are in memory: nothing is subtracted.
        peak_beside_rows_mb: mb(peak),
        rows_mb: mb(rows),
    })
}

/// Time from `began` to the last link.
fn last_link(process: &Path, began: Instant) -> Result<Duration> {
    let mut known = 0;
    let mut last = Duration::ZERO;
    loop {
        let now = began.elapsed();
        let links = links(process)?;
        if links > known {
            (known, last) = (links, now);
        }
        if known > 0 && now > last + QUIET {
            return Ok(last);
        }
        ensure!(now < PATIENCE, "latency-user attached nothing");
        thread::sleep(LOOK);
    }
}

fn links(process: &Path) -> Result<usize> {
    let directory = process.join("fd");
    let entries =
        directory.read_dir().with_context(|| format!("cannot read {}", directory.display()))?;
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    // Kernels of the 6 series differ in the hyphen.
    Ok(targets.filter(|target| is_link(&target.to_string_lossy())).count())
}

fn is_link(target: &str) -> bool {
    matches!(target, "anon_inode:bpf_link" | "anon_inode:bpf-link" | "anon_inode:[perf_event]")
}

/// Resident memory of mapped BPF maps, and of everything else.
fn resident_kb(smaps: &str) -> (u64, u64) {
    let (mut of_maps, mut others, mut is_map) = (0, 0, false);
    for line in smaps.lines() {
        if let Some(kb) = field_kb(line, "Rss") {
            *if is_map { &mut of_maps } else { &mut others } += kb;
        } else if line.split(' ').next().is_some_and(|word| word.contains('-')) {
            is_map = line.ends_with("bpf-map");
        }
    }
    (of_maps, others)
}

fn field_kb(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_told_from_other_memory() {
        let smaps = "55d0a000-55d0b000 r-xp 00000000 fd:00 1 /usr/bin/latency-user\n\
                     Size:                  4 kB\nRss:                 4 kB\n\
                     7f1a000-7f1b000 r--s 00000000 00:0e 1057 anon_inode:bpf-map\n\
                     Size:               3844 kB\nRss:              1200 kB\n\
                     7f2a000-7f2b000 rw-p 00000000 00:00 0\nRss:                30 kB\n";
        assert_eq!(resident_kb(smaps), (1200, 34));
    }

    #[test]
    fn the_peak_is_read() {
        assert_eq!(field_kb("VmPeak:\t  9 kB\nVmHWM:\t   50584 kB\n", "VmHWM"), Some(50584));
        assert_eq!(field_kb("VmPeak:\t  9 kB\n", "VmHWM"), None);
    }
}
