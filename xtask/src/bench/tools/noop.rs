//! No-op programs on the hooks of a NET_RX cycle: they return at once, or only read the clock.

use anyhow::Result;

use super::tool::{Tool, words};
use crate::bench::{built::Built, programs};

/// Cost of the run-time statistics themselves: the programs return at once.
pub(crate) const EMPTY: &str = "no-op, empty";
/// Reads the clock on the same hooks as a cycle of latency-user.
pub(crate) const AS_OURS: &str = "no-op, our clock reads";

/// Hooks on which latency-ebpf reads the clock in a cycle of one poll. The exit reuses the poll's
/// timestamp unless a tick came in between, which is rare at any packet rate worth measuring.
const OUR_CLOCK_READS: &str = "raise,entry,poll";

/// All no-op programs, cheapest first.
pub(crate) fn all(built: &Built) -> Vec<Tool> {
    vec![empty(built), noop(built, "no-op, 2 clock reads", "entry,exit"), as_ours(built)]
}

pub(crate) fn empty(built: &Built) -> Tool {
    noop(built, EMPTY, "none")
}

pub(crate) fn as_ours(built: &Built) -> Tool {
    noop(built, AS_OURS, OUR_CLOCK_READS)
}

/// Run time that the statistics report for an empty program while `load` runs, ns per run.
pub(crate) fn statistics_ns<T>(built: &Built, load: impl FnOnce() -> Result<T>) -> Result<f64> {
    let tracer = empty(built).start()?;
    let before = programs::of_process(tracer.id())?;
    load()?;
    let spent = programs::since(&programs::of_process(tracer.id())?, &before);
    tracer.stop()?;
    Ok(spent.ns as f64 / spent.runs as f64)
}

/// `clock_reads`: hooks whose programs read the clock.
fn noop(built: &Built, name: &'static str, clock_reads: &str) -> Tool {
    let object = built.noop_object.display();
    Tool {
        name,
        program: Some(built.noop.clone()),
        arguments: words(&format!("{object} {clock_reads}")),
        package: "latency-tests",
        count: |_| None,
    }
}
