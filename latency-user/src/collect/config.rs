//! What to trace and how, with the defaults of the command line.

use latency_common::stage::Stage;

use crate::{
    kernel::probes::selection::ProbeChoice,
    model::{
        method::Method,
        run::{DEFAULT_THRESHOLD_NS, SampleClock, SampleWhen, Transport},
    },
};

/// About one sample per millisecond, the default threshold: nearly every stall has a sample. A
/// prime number avoids lockstep with the kernel's own timers.
pub const DEFAULT_SAMPLE_HZ: u64 = 997;

/// More stalls per second are not worth listing individually.
pub const DEFAULT_RECORDS_PER_SECOND: u64 = 1000;

/// Slow calls of `tcp_collapse`: below the stall threshold, because several may add up to a stall.
pub const DEFAULT_COLLAPSE_THRESHOLD_NS: u64 = 500_000;

/// Capacity of the event ring buffer, events.
pub const DEFAULT_RING_EVENTS: u32 = 1 << 18;

/// The stages that are timed by default: all but the optional one.
pub fn default_stages() -> Vec<Stage> {
    Stage::ALL.into_iter().filter(|stage| *stage != Stage::Softirq).collect()
}

/// What to trace and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// Stages to time.
    pub stages: Vec<Stage>,
    /// Whether they were requested by name: then it is an error if one cannot be timed.
    pub by_name: bool,
    /// Which methods to use.
    pub choice: ProbeChoice,
    /// Minimum duration of a stall, ns.
    pub threshold_ns: u64,
    /// How events travel.
    pub transport: Transport,
    /// Capacity of the event ring buffer, events.
    pub ring_events: u32,
    /// Slots for queues and IRQs; `None`: estimated from the machine.
    pub slots: Option<u32>,
    /// Whether to log the kernel side's warnings.
    pub log: bool,
    /// Sampling frequency of stacks on each CPU, Hz; 0: no stacks.
    pub sample_hz: u64,
    /// What the sampling clock counts.
    pub sample_clock: SampleClock,
    /// When each CPU has the clock.
    pub sample_when: SampleWhen,
    /// Minimum duration of `tcp_collapse` calls that are reported with their socket, ns.
    pub collapse_threshold_ns: u64,
    /// Stalls and slow collapses that a CPU may report in one second; the rest are only counted.
    pub records_per_second: u64,
    /// Size of the stall ring buffer, bytes; `None`: by the number of CPUs.
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
            sample_clock: SampleClock::default(),
            sample_when: SampleWhen::default(),
            collapse_threshold_ns: DEFAULT_COLLAPSE_THRESHOLD_NS,
            records_per_second: DEFAULT_RECORDS_PER_SECOND,
            record_bytes: None,
        }
    }
}

impl Config {
    /// The one method that was asked for; `None`: the best ones are used.
    pub fn forced_method(&self) -> Option<Method> {
        match self.choice {
            ProbeChoice::Auto => None,
            ProbeChoice::Forced(method) => Some(method),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}
