//! CPU time that the daemon takes for an interval of a large machine's rows.
//!
//! `bench-serve OBJECT CPUS QUEUES INTERVALS MILLISECONDS`: for each interval of ten seconds, adds
//! events to the rows of the eBPF object, waits MILLISECONDS, and does what the daemon does: reads the
//! rows, adds to its totals, its ring of recordings, its page and its metrics, and is scraped once.
//! Prints one line of JSON: the CPU time in seconds of each interval, and the bytes of the ring.

use std::{env, fs, path::Path, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use latency_tests::{
    cpu_time,
    simulated::{self, Rows},
};
use latency_user::{
    analysis::totals::Totals,
    collect::{naming::Naming, snapshot::RowCounters},
    commands::serve::Options,
    measure::sink::{Measured, Sink, SoFar},
    model::interval::Interval,
    serve::{
        metrics::{self, Form},
        ring::Ring,
        shared::Shared,
        sink::DaemonSink,
    },
};
use serde_json::json;

const INTERVAL: Duration = Duration::from_secs(10);

#[expect(clippy::print_stdout, reason = "the benchmark reads the outcome there")]
fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [object, cpus, queues, intervals, pause] = &arguments[..] else {
        bail!("expected OBJECT CPUS QUEUES INTERVALS MILLISECONDS: {arguments:?}");
    };
    let number = |text: &str| text.parse::<u32>().with_context(|| format!("number: {text:?}"));
    let mut rows = Rows::new(Path::new(object), number(cpus)?, number(queues)?)?;
    let pause = Duration::from_millis(number(pause)?.into());
    let directory = tempfile::tempdir()?;
    let options = Options { state: Some(directory.path().into()), ..Options::default() };
    let config = options.config(number(cpus)? as usize);
    let run = simulated::run(number(cpus)?, Duration::ZERO);
    let place = config.state.join("ring");
    let ring = Ring::open(&place, config.ring)?;
    let (shared, _work) = Shared::new(config, run.clone());
    let mut sink = DaemonSink::new(&shared, ring);
    sink.start(&run)?;
    let mut naming = Naming::new(rows.layout)?;
    naming.refresh(&rows.slots, rows.slots.len())?;

    let (mut counters, totals) = (RowCounters::default(), Totals::default());
    let so_far = SoFar::default();
    let mut spent = Vec::new();
    // The first interval reads every row, unlike the later ones; it is not measured.
    for nth in 0..=number(intervals)? {
        rows.advance();
        thread::sleep(pause);
        let started = cpu_time::of_this_thread();
        counters.read(&rows.mapped, false);
        let fresh = counters.take_fresh();
        ensure!(fresh.len() == rows.active(), "{} of {} rows", fresh.len(), rows.active());
        let (series, _) = naming.name(fresh);
        let interval = Interval::new(INTERVAL * nth, INTERVAL, series);
        sink.interval(&Measured {
            run: &run,
            started_at: simulated::started_at(),
            elapsed: INTERVAL * (nth + 1),
            all: &interval,
            shown: &interval,
            totals: &totals,
            so_far: Some(&so_far),
        })?;
        let scraped = metrics::render(shared.metrics().clone(), Form::Protobuf)?;
        ensure!(scraped.len() > 1000, "{} bytes scraped", scraped.len());
        if nth > 0 {
            spent.push((cpu_time::of_this_thread() - started).as_secs_f64());
        }
    }
    let sizes = fs::read_dir(&place)?.map(|entry| Ok(entry?.metadata()?.len()));
    let bytes: u64 = sizes.sum::<Result<u64>>()?;
    println!("{}", json!({ "active": rows.active(), "spent": spent, "ring_bytes": bytes }));
    Ok(())
}
