//! What to measure, how often, and at what cost.

use std::time::Duration;

use crate::collect::config::Config;

/// The settings of a measurement.
#[derive(Clone, Debug)]
pub struct MeasureConfig {
    /// What is traced and how.
    pub tracer: Config,
    /// The interfaces that the run is about; empty: all. They go into its header.
    pub ifaces: Vec<String>,
    /// Whether sinks are shown the queues and IRQs of all interfaces all the same.
    pub show_all: bool,
    /// Time between two snapshots.
    pub interval: Duration,
    /// The largest share of any CPU that the programs may take, 0 to 1; `None`: no limit.
    pub max_overhead: Option<f64>,
}

impl MeasureConfig {
    /// Everything by the command line's defaults: a snapshot a second, all interfaces, no limit.
    pub fn new() -> Self {
        Self {
            tracer: Config::new(),
            ifaces: Vec::new(),
            show_all: false,
            interval: Duration::from_secs(1),
            max_overhead: None,
        }
    }
}

impl Default for MeasureConfig {
    fn default() -> Self {
        Self::new()
    }
}
