//! CPU time and memory of the daemon: a real one on this machine, and its own code with the simulated
//! rows of a large one.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::single_run::{field_kb, read, resident_kb};
use crate::{
    bench::{
        built::Built, figures, goals, load::Load, plan::Plan, results::Results, tracer::Tracer,
    },
    process,
};

const BENCHMARK: &str = "User space: the daemon";

/// CPU time is measured for so long at a time: a few intervals of a second.
const SLICE: Duration = Duration::from_secs(5);
const QUICK_SLICE: Duration = Duration::from_secs(1);

/// In its first intervals the daemon still looks for the names of queues: a run of days is not
/// measured by them.
const WARM_UP: Duration = Duration::from_secs(25);

/// More slices would take long and add little.
const MAX_ROUNDS: usize = 6;

/// Packets a second of the slices with load.
const RATE: u64 = 10_000;

/// The machine for which a goal is set, and its interval.
const CPUS: u32 = 256;
const QUEUES: u32 = 64;
const INTERVAL_S: f64 = 10.0;

pub(crate) fn run(built: &Built, plan: &Plan, results: &mut Results) -> Result<()> {
    here(built, plan, results)?;
    large(built, plan, results)
}

/// A directory that ends with this.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // A benchmark that failed leaves nothing either.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn here(built: &Built, plan: &Plan, results: &mut Results) -> Result<()> {
    let directory =
        Directory(std::env::temp_dir().join(format!("bench-serve-{}", std::process::id())));
    fs::create_dir(&directory.0).context("cannot create a directory")?;
    let at = |name: &str| directory.0.join(name);
    let mut load = Load::start(built, &["udp"])?;
    let mut command = Command::new(&built.latency_user);
    command.args(["serve", "--interval", "1s", "--max-overhead", "none", "--listen"]);
    command.arg(format!("unix:{}", at("http").display()));
    command.arg("--state").arg(at("state")).arg("--socket").arg(at("control"));
    let daemon = Tracer::start(&mut command)?;
    let slice = if plan.quick { QUICK_SLICE } else { SLICE };
    if !plan.quick {
        load.slice(WARM_UP, Some(RATE))?;
    }
    let (mut idle, mut loaded) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds.min(MAX_ROUNDS) {
        process::step(&format!("{BENCHMARK}: round {}", round + 1));
        let (started, before) = (Instant::now(), daemon.cpu_ms()?);
        thread::sleep(slice);
        scrape(&at("http"))?;
        idle.push((daemon.cpu_ms()? - before) / started.elapsed().as_secs_f64() / 10.0);
        let (started, before) = (Instant::now(), daemon.cpu_ms()?);
        load.slice(slice, Some(RATE))?;
        scrape(&at("http"))?;
        loaded.push((daemon.cpu_ms()? - before) / started.elapsed().as_secs_f64() / 10.0);
    }
    let process = PathBuf::from("/proc").join(daemon.id().to_string());
    let (_, resident) = resident_kb(&read(&process.join("smaps"))?);
    let peak = field_kb(&read(&process.join("status"))?, "VmHWM").context("no VmHWM")?;
    daemon.stop()?;
    let segments = fs::read_dir(at("state").join("ring"))?.count();
    results.check("the daemon kept its ring", segments > 0, || "no segment".to_owned());
    let mb = |kb: u64| figures::of(&[kb as f64 * 1024.0 / 1e6]);
    let name = "this machine, 1 s";
    results.row(BENCHMARK, name, "% core, idle", figures::of(&idle));
    results.row(BENCHMARK, name, "% core, 10,000 packets/s", figures::of(&loaded));
    results.row(BENCHMARK, name, "other memory, MB", mb(resident));
    results.row(BENCHMARK, name, "peak other, MB", mb(peak));
    results.goal(&goals::SERVE_USER, figures::of(&loaded));
    results.goal(&goals::SERVE_PEAK, mb(peak));
    Ok(())
}

/// Reads the metrics as Prometheus does.
fn scrape(socket: &Path) -> Result<()> {
    let place = || format!("cannot scrape {}", socket.display());
    let mut stream = UnixStream::connect(socket).with_context(place)?;
    let accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                  encoding=delimited";
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n")
        .with_context(place)?;
    write!(stream, "Connection: close\r\n\r\n").with_context(place)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(place)?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", place());
    Ok(())
}

fn large(built: &Built, plan: &Plan, results: &mut Results) -> Result<()> {
    // Three minutes, so that segments end in between.
    let (intervals, pause) = if plan.quick { (1, 10) } else { (18, 1000) };
    let mut command = Command::new(&built.serve);
    command.arg(&built.object);
    command.args([CPUS, QUEUES, intervals, pause].map(|number| number.to_string()));
    let name = format!("{CPUS} CPUs x {QUEUES} queues, 10 s");
    process::step(&format!("{BENCHMARK}: {name}"));
    let text = process::capture(&mut command)?;
    let outcome: Value =
        serde_json::from_str(&text).context("cannot parse the output of bench-serve")?;
    let spent = outcome["spent"].as_array().into_iter().flatten().filter_map(Value::as_f64);
    let shares: Vec<f64> = spent.map(|seconds| seconds / INTERVAL_S * 100.0).collect();
    // The mean: intervals that end a segment are dear, and rare.
    let mean = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
    let figure = figures::of(&[mean]);
    results.row(BENCHMARK, &name, "% core, an interval", figures::of(&shares));
    results.row(BENCHMARK, &name, "% core, mean", figure);
    let bytes = outcome["ring_bytes"].as_f64().unwrap_or(0.0);
    results.row(
        BENCHMARK,
        &name,
        "kB of ring an interval",
        figures::of(&[bytes / 1e3 / f64::from(intervals + 1)]),
    );
    results.check(format!("{name}: rows were read"), bytes > 0.0, || "none".to_owned());
    results.goal(&goals::SERVE_USER_LARGE, figure);
    Ok(())
}
