//! Compares counts with the kernel's own (`/proc/softirqs`, `/proc/interrupts`), and one transport
//! with the other.

use std::{fs::File, io::Write, os::fd::AsRawFd, path::Path};

use anyhow::{Context, Result, ensure};
use latency_tests::{load, namespace};
use latency_user::host::cpu::{interrupts::Interrupts, softirqs::Softirqs};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    suite::{Where, trial},
    tracing::{Tracing, counts, number, series},
};

/// Datagrams over loopback: a prime number; each raises one NET_RX softirq.
const PACKETS: u64 = 20_011;
/// Writes to a disk: a prime number; each causes at least one hard IRQ.
const WRITES: usize = 53;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    [
        trial("counts::net_rx_matches_proc_softirqs", Where::Everywhere, &[], net_rx),
        trial("counts::vectors_match_proc_softirqs", Where::Everywhere, &[], vectors),
        trial("counts::irqs_match_proc_interrupts", Where::Host, &[], irqs),
        trial("counts::both_transports_agree", Where::Everywhere, &[], transports),
        trial(
            "counts::events_dropped_by_a_full_ring_are_counted",
            Where::Everywhere,
            &[],
            full_ring,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Bounds from a kernel counter read around a run: the run's count must lie between them.
pub(crate) struct Bracket {
    /// Increase from after the tracer's start to before its end.
    pub(crate) least: u64,
    /// Increase from before the tracer's start to after its end.
    most: u64,
}

/// Traces while `load` runs. Reads kernel counters before and after both the start and the end.
pub(crate) fn bracketed(
    arguments: &[&str],
    read: impl Fn() -> Result<Vec<u64>>,
    load: impl FnOnce() -> Result<()>,
) -> Result<(Value, Vec<Bracket>)> {
    let outside = read()?;
    let tracing = Tracing::start(arguments)?;
    let inside = read()?;
    load()?;
    let inside_end = read()?;
    let summary = tracing.summary()?;
    let outside_end = read()?;
    let brackets = (0..outside.len())
        .map(|at| Bracket {
            least: inside_end[at] - inside[at],
            most: outside_end[at] - outside[at],
        })
        .collect();
    Ok((summary, brackets))
}

/// Counts of a softirq vector, by CPU.
pub(crate) fn softirqs(vector: &str) -> Result<Vec<u64>> {
    let softirqs = Softirqs::read(Path::new("/"))?;
    let counts = softirqs.counts(vector).with_context(|| format!("no vector {vector}"))?;
    Ok(counts.iter().map(|count| u64::from(*count)).collect())
}

/// The count of the one series of a CPU that `is_it` picks; 0 if there is none.
pub(crate) fn count_on(summary: &Value, cpu: usize, is_it: impl Fn(&Value) -> bool) -> Result<u64> {
    let rows = series(summary, |row| row["cpu"] == cpu as u64 && is_it(row));
    ensure!(rows.len() <= 1, "CPU {cpu}: {rows:?}");
    rows.first().map_or(Ok(0), |row| number(row, "count"))
}

pub(crate) fn check(what: &str, count: u64, bracket: &Bracket) -> Result<()> {
    let Bracket { least, most } = bracket;
    ensure!((*least..=*most).contains(&count), "{what}: {count}, the kernel: {least} to {most}");
    Ok(())
}

fn net_rx() -> Result<()> {
    namespace::run(|| {
        let (summary, brackets) = bracketed(&[], || softirqs("NET_RX"), || load::udp(PACKETS))?;
        // On a busy machine one run may handle several packets.
        ensure!(
            brackets.iter().map(|bracket| bracket.least).sum::<u64>() >= PACKETS / 2,
            "too little load"
        );
        for (cpu, bracket) in brackets.iter().enumerate() {
            let count = count_on(&summary, cpu, |row| row["stage"] == "net_rx")?;
            check(&format!("net_rx on CPU {cpu}"), count, bracket)?;
        }
        // Every run of NET_RX ends a wait, unless its raise was not seen.
        let waits = counts(&summary, "rx_wait")?;
        let runs = number(counts(&summary, "net_rx")?, "started")?;
        let ended = number(waits, "recorded")?
            + number(waits, "unmatched_end")?
            + number(waits, "backwards")?;
        ensure!(ended == runs, "{ended} waits ended, {runs} runs started");
        Ok(())
    })
}

fn vectors() -> Result<()> {
    for vector in ["TIMER", "SCHED", "RCU"] {
        let (summary, brackets) =
            bracketed(&["--stages", "softirq"], || softirqs(vector), || load::udp(PACKETS))?;
        for (cpu, bracket) in brackets.iter().enumerate() {
            let count = count_on(&summary, cpu, |row| row["vector"] == vector)?;
            check(&format!("{vector} on CPU {cpu}"), count, bracket)?;
        }
    }
    Ok(())
}

/// Once more if the first run does not agree: on a machine whose disk others keep busy, eight of 159
/// interrupts were missing once, and it could not be repeated. A loss must not happen twice.
fn irqs() -> Result<()> {
    irqs_once().or_else(|first| irqs_once().with_context(|| format!("failed twice: {first:#}")))
}

fn irqs_once() -> Result<()> {
    let read = || {
        let interrupts = Interrupts::read(Path::new("/"))?;
        Ok(numbered(&interrupts).into_iter().flat_map(|(_, counts)| counts).collect())
    };
    let mut file = tempfile::tempfile_in(Path::new("/var/tmp"))?;
    let (summary, brackets) = bracketed(&[], read, || write_to_disk(&mut file))?;
    let interrupts = Interrupts::read(Path::new("/"))?;
    let mut brackets = brackets.iter();
    let mut seen = 0;
    for (irq, counts) in numbered(&interrupts) {
        for cpu in 0..counts.len() {
            let bracket = brackets.next().context("a new IRQ appeared")?;
            let is_it = |row: &Value| row["stage"] == "irq" && row["irq"] == irq;
            let count = count_on(&summary, cpu, is_it)?;
            let what = format!("IRQ {irq} on CPU {cpu}");
            check(&what, count, bracket).with_context(|| {
                let irqs = series(&summary, |row| row["stage"] == "irq");
                format!("{irqs:?}, {}", summary["ledger"])
            })?;
            seen += bracket.least;
        }
    }
    ensure!(seen >= WRITES as u64, "too little load: {seen} hard IRQs");
    Ok(())
}

/// Numbered IRQs with a single action: on a shared IRQ, every action is an event.
fn numbered(interrupts: &Interrupts) -> Vec<(u32, Vec<u64>)> {
    let lines = interrupts.lines.iter().filter(|line| !line.name.contains(", "));
    lines.filter_map(|line| Some((line.number?, line.counts.clone()))).collect()
}

fn write_to_disk(file: &mut File) -> Result<()> {
    for _ in 0..WRITES {
        file.write_all(&[1; 4096])?;
        // SAFETY: the descriptor is open for the call.
        ensure!(unsafe { libc::fsync(file.as_raw_fd()) } == 0, "fsync");
    }
    Ok(())
}

fn transports() -> Result<()> {
    namespace::run(|| {
        let tracing = Tracing::start(&["--transport", "both", "--ring-events", "1048576"])?;
        load::udp(PACKETS)?;
        let summary = tracing.summary()?;
        ensure!(summary["ledger"]["rows_that_differ"] == 0, "{}", summary["ledger"]);
        // A run may process several packets.
        let received = number(counts(&summary, "net_rx")?, "ring_received")?;
        ensure!(received > PACKETS / 2, "{received}: {}", summary["ledger"]);

        let (summary, brackets) = bracketed(
            &["--transport", "ring", "--ring-events", "1048576"],
            || softirqs("NET_RX"),
            || load::udp(PACKETS),
        )?;
        for (cpu, bracket) in brackets.iter().enumerate() {
            let count = count_on(&summary, cpu, |row| row["stage"] == "net_rx")?;
            check(&format!("net_rx by ring on CPU {cpu}"), count, bracket)?;
        }
        Ok(())
    })
}

/// A ring too small for the load drops events and counts them; the ledger still balances.
fn full_ring() -> Result<()> {
    namespace::run(|| {
        let tracing = Tracing::start(&["--transport", "ring", "--ring-events", "128"])?;
        // A stopped tracer does not read, so the ring must fill up.
        tracing.signal(libc::SIGSTOP)?;
        load::udp(PACKETS)?;
        tracing.signal(libc::SIGCONT)?;
        let summary = tracing.summary()?;
        let net_rx = counts(&summary, "net_rx")?;
        let dropped = number(net_rx, "ring_dropped")?;
        ensure!(dropped > PACKETS / 2, "{net_rx}");
        ensure!(number(net_rx, "recorded")? + dropped >= PACKETS, "{net_rx}");
        ensure!(summary["ledger"]["balanced"] == true, "{net_rx}");
        Ok(())
    })
}
