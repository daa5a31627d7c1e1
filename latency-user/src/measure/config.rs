//! What to measure, how often, and the limit of the overhead.

use std::{path::PathBuf, time::Duration};

use crate::collect::config::Config;

/// The settings of a measurement.
#[derive(Clone, Debug)]
pub struct MeasureConfig {
    /// What to trace and how.
    pub tracer: Config,
    /// The interfaces of the run, for its header; empty: all.
    pub ifaces: Vec<String>,
    /// Whether to show the queues and IRQs of all interfaces regardless of `ifaces`.
    pub show_all: bool,
    /// Time between snapshots.
    pub interval: Duration,
    /// The largest share of any CPU that the programs may take, 0 to 1; `None`: no limit.
    pub max_overhead: Option<f64>,
    /// The control socket of the daemon that measures; `None`: this process does.
    pub daemon: Option<PathBuf>,
}

impl MeasureConfig {
    /// The command line's defaults: a snapshot a second, all interfaces, no limit.
    pub fn new() -> Self {
        Self {
            tracer: Config::new(),
            ifaces: Vec::new(),
            show_all: false,
            interval: Duration::from_secs(1),
            max_overhead: None,
            daemon: None,
        }
    }
}

impl Default for MeasureConfig {
    fn default() -> Self {
        Self::new()
    }
}
