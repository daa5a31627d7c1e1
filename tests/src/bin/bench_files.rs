//! Recordings for benchmarks of readers and writers.
//!
//! `bench-files write FILE SERIES INTERVALS` writes a simulated recording with the product's own
//! writer and prints the CPU time as JSON. `bench-files python` and `bench-files javascript` print
//! the command that reads a recording with another implementation, one word per line; the first
//! call installs it.

use std::{env, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use latency_tests::{cpu_time, javascript, python, simulated};
use latency_user::{model::interval::Interval, recording::writer::Writer};
use serde_json::json;

#[expect(clippy::print_stdout, reason = "the benchmark reads the outcome there")]
fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["write", file, series, intervals] => {
            let number = |text: &str| text.parse().with_context(|| format!("number: {text:?}"));
            write(Path::new(file), number(series)?, number(intervals)?)?;
        }
        ["python"] => {
            let python = python::with_packages()?;
            println!("{}\n{}", python.display(), python::script("read_recording.py").display());
        }
        ["javascript"] => {
            let modules = javascript::with_hdrhistogram()?;
            let script = python::script("read_recording.js");
            println!("node\n{}\n{}", script.display(), modules.display());
        }
        _ => bail!("expected write FILE SERIES INTERVALS, python or javascript: {words:?}"),
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the benchmark reads the outcome there")]
fn write(path: &Path, series: u32, intervals: u32) -> Result<()> {
    let mut random = 0x2545_f491_4f6c_dd1d;
    let mut writer = Writer::create(path)?;
    writer.start(&simulated::run(series / 2, Duration::ZERO))?;
    let mut spent = Duration::ZERO;
    for number in 0..intervals {
        let start = Duration::from_secs(number.into());
        let series = simulated::series(series, &mut random);
        let interval = Interval::new(start, Duration::from_secs(1), series);
        let started = cpu_time::of_this_thread();
        writer.interval(&interval)?;
        spent += cpu_time::of_this_thread() - started;
    }
    println!("{}", json!({ "seconds": spent.as_secs_f64() }));
    Ok(())
}
