//! Prints each second's longest stall, for ten seconds: a measurement with a sink of its own.
//!
//! Run as root, in the workspace:
//!
//! ```sh
//! cargo build --release --example longest_stall
//! sudo target/release/examples/longest_stall
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints for people")]

use std::{future, time::Duration};

use anyhow::Result;
use latency_user::{
    kernel::{privileges, single_instance::SingleInstance},
    measure::{
        self, MeasureConfig, Measurement,
        pacing::{Ends, Stop},
        sink::{Finished, Measured, Sink},
    },
};

/// Prints the longest stall of each interval.
struct LongestStall;

impl Sink for LongestStall {
    fn interval(&mut self, measured: &Measured<'_>) -> Result<Option<Stop>> {
        let second = measured.elapsed.as_secs();
        let stalls = &measured.all.batch.stalls;
        match stalls.iter().max_by_key(|stall| stall.duration_ns) {
            Some(stall) => println!(
                "{second} s: {:?} of {} on CPU {}, longest of {}",
                Duration::from_nanos(stall.duration_ns),
                stall.stage.name(),
                stall.cpu,
                stalls.len(),
            ),
            None => println!("{second} s: no stall"),
        }
        Ok(None)
    }

    fn finish(&mut self, end: &Finished<'_>) -> Result<()> {
        let ledger = &end.summary.ledger;
        println!("accounting {}", if ledger.balanced { "OK" } else { "FAILED" });
        Ok(())
    }
}

fn main() -> Result<()> {
    privileges::check()?;
    let _instance = SingleInstance::claim()?;
    measure::block_on(async {
        let mut measurement = Measurement::start(&MeasureConfig::new())?;
        let mut sink = LongestStall;
        let mut notify = |_stage, note: &_| eprintln!("warning: {note}");
        let ends = Ends {
            duration: Some(Duration::from_secs(10)),
            signal: future::pending(),
            early: None,
            outlast_stages: false,
        };
        measurement.follow(ends, &mut [&mut sink], &mut notify).await?;
        measurement.finish(&mut [&mut sink], &mut notify)?;
        Ok(())
    })
}
