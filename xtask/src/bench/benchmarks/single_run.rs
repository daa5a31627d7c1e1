//! One run of latency-user from start to end: time to attach, time to stop, CPU time and memory.
//!
//! It is attached once the last of its BPF links has appeared among its descriptors.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    bench::{
        built::Built,
        figures, goals,
        plan::Plan,
        results::Results,
        tools::ours,
        tracer::{Output, Tracer},
    },
    process,
};

const BENCHMARK: &str = "User space: one run from start to end";

/// After this time without a new link, no more will come.
const QUIET: Duration = Duration::from_millis(400);
/// How often to check for links.
const POLL: Duration = Duration::from_micros(500);
const TIMEOUT: Duration = Duration::from_secs(60);

/// Figures of one run.
struct Run {
    startup_ms: f64,
    startup_cpu_ms: f64,
    stop_ms: f64,
    other_mb: f64,
    peak_other_mb: f64,
    rows_mb: f64,
}

pub(crate) fn run(built: &Built, plan: &Plan, results: &mut Results) -> Result<()> {
    let mut runs = Vec::new();
    for number in 0..plan.rounds {
        process::step(&format!("{BENCHMARK}: {} of {}", number + 1, plan.rounds));
        runs.push(once(built)?);
    }
    let of = |value: fn(&Run) -> f64| figures::of(&runs.iter().map(value).collect::<Vec<_>>());
    let name = ours::EVERYTHING;
    let (startup, peak) = (of(|run| run.startup_ms), of(|run| run.peak_other_mb));
    let others = of(|run| run.other_mb);
    results.row(BENCHMARK, name, "attached, ms", startup);
    results.row(BENCHMARK, name, "its CPU, ms", of(|run| run.startup_cpu_ms));
    results.row(BENCHMARK, name, "stopped, ms", of(|run| run.stop_ms));
    results.row(BENCHMARK, name, "rows, MB", of(|run| run.rows_mb));
    results.row(BENCHMARK, name, "other memory, MB", others);
    results.row(BENCHMARK, name, "peak other, MB", peak);
    results.check("memory was read", runs.iter().all(|run| run.rows_mb > 0.0), || {
        "no rows in /proc/PID/smaps".to_owned()
    });
    results.goal(&goals::STARTUP, startup);
    results.goal(&goals::MEMORY, others);
    results.goal(&goals::MEMORY_PEAK, peak);
    Ok(())
}

fn once(built: &Built) -> Result<Run> {
    let tool = ours::tool(built, ours::EVERYTHING, "--interval 1s");
    let started = Instant::now();
    let mut tracer = Tracer::spawn(&mut tool.command()?)?;
    let directory = PathBuf::from("/proc").join(tracer.id().to_string());
    let attached = last_link(&directory, started)?;
    let startup_cpu_ms = tracer.cpu_ms()?;
    // Wait until after the first snapshot, to include its memory.
    thread::sleep(Duration::from_millis(1200).saturating_sub(started.elapsed() - attached));
    let smaps = read(&directory.join("smaps"))?;
    let status = read(&directory.join("status"))?;
    let (rows, others) = resident_kb(&smaps);
    let peak = field_kb(&status, "VmHWM").context("no VmHWM in /proc/PID/status")?;

    let interrupted = Instant::now();
    tracer.interrupt();
    let Output { stdout, .. } = tracer.wait()?;
    let stop_ms = interrupted.elapsed().as_secs_f64() * 1000.0;
    ensure!(stdout.contains(r#""kind":"summary""#), "latency-user ended without a summary");
    let mb = |kb: u64| kb as f64 * 1024.0 / 1e6;
    Ok(Run {
        startup_ms: attached.as_secs_f64() * 1000.0,
        startup_cpu_ms,
        stop_ms,
        other_mb: mb(others),
        // The peak is during start-up, before the rows are resident: nothing is subtracted.
        peak_other_mb: mb(peak),
        rows_mb: mb(rows),
    })
}

/// Time from `started` to the last new link.
fn last_link(process: &Path, started: Instant) -> Result<Duration> {
    let mut known = 0;
    let mut last = Duration::ZERO;
    loop {
        let now = started.elapsed();
        let links = links(process)?;
        if links > known {
            (known, last) = (links, now);
        }
        if known > 0 && now > last + QUIET {
            return Ok(last);
        }
        ensure!(now < TIMEOUT, "latency-user attached nothing");
        thread::sleep(POLL);
    }
}

fn links(process: &Path) -> Result<usize> {
    let directory = process.join("fd");
    let entries =
        directory.read_dir().with_context(|| format!("cannot read {}", directory.display()))?;
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    // Linux 6.x kernels spell it with a hyphen or an underscore.
    Ok(targets.filter(|target| is_link(&target.to_string_lossy())).count())
}

fn is_link(target: &str) -> bool {
    matches!(target, "anon_inode:bpf_link" | "anon_inode:bpf-link" | "anon_inode:[perf_event]")
}

/// Resident memory of mapped BPF maps, and of everything else.
pub(super) fn resident_kb(smaps: &str) -> (u64, u64) {
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

pub(super) fn field_kb(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

pub(super) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_separated_from_other_memory() {
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
