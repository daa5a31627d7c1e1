//! The load of the case study: single bytes to a TCP receiver that never reads.
//!
//! `tcp-collapse-load [SECONDS]`, in a network namespace of its own.

use std::{env, time::Duration};

use anyhow::{Context, Result, ensure};
use latency_tests::load;

/// More would fill memory without showing anything new.
const LONGEST: u64 = 60;

fn main() -> Result<()> {
    let seconds = match env::args().nth(1) {
        Some(seconds) => seconds.parse().with_context(|| format!("seconds: {seconds:?}"))?,
        None => 8,
    };
    ensure!((1..=LONGEST).contains(&seconds), "seconds: {seconds}, expected 1 to {LONGEST}");
    load::tcp_collapse(load::LARGE_RMEM, Duration::from_secs(seconds), || false)?;
    Ok(())
}
