//! CPU time that user space takes for a snapshot of a large machine's rows.
//!
//! `bench-rows OBJECT CPUS QUEUES SNAPSHOTS MILLISECONDS`: for each snapshot, adds a second's worth
//! of events to the rows of the eBPF object, waits MILLISECONDS, and converts the rows to a table
//! and to an entry of a recording, as the tracer does. Prints one line of JSON: the CPU time in
//! seconds of each snapshot, table and entry.

use std::{env, fs, path::Path, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use latency_tests::{
    cpu_time,
    simulated::{self, Rows, THRESHOLD_NS},
};
use latency_user::{
    collect::{naming::Naming, snapshot::RowCounters},
    model::interval::Interval,
    recording::writer::Writer,
    views::{self, Style},
};
use serde_json::json;

#[expect(clippy::print_stdout, reason = "the benchmark reads the outcome there")]
fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [object, cpus, queues, snapshots, pause] = &arguments[..] else {
        bail!("expected OBJECT CPUS QUEUES SNAPSHOTS MILLISECONDS: {arguments:?}");
    };
    let number = |text: &str| text.parse::<u32>().with_context(|| format!("number: {text:?}"));
    let mut rows = Rows::new(Path::new(object), number(cpus)?, number(queues)?)?;
    let pause = Duration::from_millis(number(pause)?.into());
    let path = env::temp_dir().join(format!("bench-rows-{}.hlog", std::process::id()));
    let mut recording = Writer::create(&path)?;
    // The file stays open and is freed with the process.
    fs::remove_file(&path)?;
    recording.start(&simulated::run(number(cpus)?, Duration::ZERO))?;
    let mut naming = Naming::new(rows.layout)?;
    naming.refresh(&rows.slots, rows.slots.len())?;

    let mut counters = RowCounters::default();
    let (mut to_interval, mut to_table, mut to_recording) = (Vec::new(), Vec::new(), Vec::new());
    // The first snapshot reads every row, unlike the later ones; it is not measured.
    for snapshot in 0..=number(snapshots)? {
        rows.advance();
        thread::sleep(pause);
        let started = cpu_time::of_this_thread();
        counters.read(&rows.mapped, false);
        let fresh = counters.take_fresh();
        ensure!(fresh.len() == rows.active(), "{} of {} rows", fresh.len(), rows.active());
        let (series, _) = naming.name(fresh);
        let start = Duration::from_secs(snapshot.into());
        let interval = Interval::new(start, Duration::from_secs(1), series);
        let after_snapshot = cpu_time::of_this_thread();
        let mut table = Vec::new();
        let style = Style { colour: false, width: 80 };
        views::table::interval(
            &interval,
            simulated::started_at(),
            THRESHOLD_NS,
            style,
            &mut table,
        )?;
        let after_table = cpu_time::of_this_thread();
        recording.interval(&interval)?;
        if snapshot > 0 {
            to_interval.push((after_snapshot - started).as_secs_f64());
            to_table.push((after_table - after_snapshot).as_secs_f64());
            to_recording.push((cpu_time::of_this_thread() - after_table).as_secs_f64());
        }
    }
    let outcome = json!({
        "rows": rows.mapped.len(),
        "active": rows.active(),
        "to_interval": to_interval,
        "to_table": to_table,
        "to_recording": to_recording,
    });
    println!("{outcome}");
    Ok(())
}
