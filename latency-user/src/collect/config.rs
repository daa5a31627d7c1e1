//! What to trace and how, with the defaults of the command line.

use latency_common::stage::Stage;

use crate::{
    kernel::probes::selection::ProbeChoice,
    model::run::{DEFAULT_THRESHOLD_NS, Transport},
};

/// A tick in a millisecond, the default threshold: nearly every stall has a sample. A prime number
/// does not keep step with the kernel's own timers.
pub const DEFAULT_SAMPLE_HZ: u64 = 997;

/// More stalls in a second are no single stalls any more.
pub const DEFAULT_RECORDS_PER_SECOND: u64 = 1000;

/// Slow calls of `tcp_collapse`: below a stall, because several of them may make one.
pub const DEFAULT_COLLAPSE_THRESHOLD_NS: u64 = 500_000;

/// Events that the ring buffer has room for.
pub const DEFAULT_RING_EVENTS: u32 = 1 << 18;

/// The stages that are timed unless others are asked for: all but the optional one.
pub fn default_stages() -> Vec<Stage> {
    Stage::ALL.into_iter().filter(|stage| *stage != Stage::Softirq).collect()
}

/// What to trace and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// Stages to time.
    pub stages: Vec<Stage>,
    /// Whether they were asked for by name, so that one that cannot be timed is an error.
    pub by_name: bool,
    /// Which methods to use.
    pub choice: ProbeChoice,
    /// Durations at or above it are stalls, ns.
    pub threshold_ns: u64,
    /// How events travel.
    pub transport: Transport,
    /// Events that the ring buffer has room for.
    pub ring_events: u32,
    /// Slots for queues and IRQs; `None`: as many as the machine can be seen to need.
    pub slots: Option<u32>,
    /// Whether the kernel side's own warnings are wanted.
    pub log: bool,
    /// Ticks of the clock that takes stacks of stalls, in one second on each CPU; 0: none.
    pub sample_hz: u64,
    /// Calls of `tcp_collapse` at or above it are reported with their socket, ns.
    pub collapse_threshold_ns: u64,
    /// Stalls and slow collapses that a CPU may report in one second; the rest is counted.
    pub records_per_second: u64,
    /// Size of the ring buffer of those reports, bytes; `None`: as the number of CPUs asks for.
    pub record_bytes: Option<u32>,
}

impl Config {
    /// All stages but the optional one, by the best methods, with the command line's defaults.
    pub fn new() -> Self {
        Self {
            stages: default_stages(),
            by_name: false,
            choice: ProbeChoice::Auto,
            threshold_ns: DEFAULT_THRESHOLD_NS,
            transport: Transport::Maps,
            ring_events: DEFAULT_RING_EVENTS,
            slots: None,
            log: false,
            sample_hz: DEFAULT_SAMPLE_HZ,
            collapse_threshold_ns: DEFAULT_COLLAPSE_THRESHOLD_NS,
            records_per_second: DEFAULT_RECORDS_PER_SECOND,
            record_bytes: None,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}
