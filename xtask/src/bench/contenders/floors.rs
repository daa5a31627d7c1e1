//! The floors: programs on the hooks of a NET_RX cycle that do nothing, or only read the clock.

use super::{Contender, words};
use crate::bench::Built;

/// What the run-time statistics themselves cost: the programs return at once.
pub(crate) const EMPTY: &str = "floor, empty";
/// The clock is read on the hooks on which a cycle of ours reads it.
pub(crate) const AS_OURS: &str = "floor, clock as ours";

/// Hooks on which latency-ebpf reads the clock in a cycle of one poll. The exit takes over the
/// poll's reading unless a tick came between, which is rare at any packet rate worth measuring.
const READS_OF_OURS: &str = "raise,entry,poll";

/// Every floor, from the lowest up.
pub(crate) fn all(built: &Built) -> Vec<Contender> {
    vec![empty(built), floor(built, "floor, 2 clock reads", "entry,exit"), as_ours(built)]
}

pub(crate) fn empty(built: &Built) -> Contender {
    floor(built, EMPTY, "none")
}

pub(crate) fn as_ours(built: &Built) -> Contender {
    floor(built, AS_OURS, READS_OF_OURS)
}

fn floor(built: &Built, name: &'static str, hooks: &str) -> Contender {
    let object = built.floor_object.display();
    Contender {
        name,
        program: Some(built.floor.clone()),
        arguments: words(&format!("{object} {hooks}")),
        package: "latency-tests",
        count: |_| None,
    }
}
