//! What the daemon does.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{endpoint::Endpoint, metrics::levels::Level, ring::Limits, trigger::Trigger};
use crate::measure::MeasureConfig;

/// Where HTTP is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Nowhere,
    /// At an address.
    Address(SocketAddr),
    /// At a Unix socket.
    Unix(PathBuf),
    /// At the sockets that systemd passes.
    Systemd,
}

/// The configuration of the daemon.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is measured.
    pub measure: MeasureConfig,
    /// Where HTTP is answered.
    pub listen: Listen,
    /// The control socket.
    pub socket: PathBuf,
    /// The directory of the ring and of recordings.
    pub state: PathBuf,
    /// What the ring keeps.
    pub ring: Limits,
    /// What makes a recording.
    pub triggers: Vec<Trigger>,
    /// How much time before a trigger is kept.
    pub before: Duration,
    /// How much after it.
    pub after: Duration,
    /// For how long a trigger of the same kind does nothing afterwards.
    pub pause: Duration,
    /// How many recordings are kept, and how many bytes; one of each day stays longer.
    pub keep: (usize, u64),
    /// The command that is run after a recording was written; empty: none.
    pub on_stall: Vec<String>,
    /// How detailed labels of metrics are.
    pub labels: Level,
    /// Maximum number of histograms.
    pub max_series: usize,
    /// Schema of native histograms.
    pub schema: i32,
    /// The collector to which metrics are pushed; `None`: to nobody.
    pub otlp: Option<Endpoint>,
    /// How often.
    pub otlp_every: Duration,
    /// Whether no capability is left after the start: programs are not attached anew then.
    pub gives_up_privileges: bool,
    /// Whether the page and recordings are shown, too, on addresses that are not loopback.
    pub page_everywhere: bool,
}

impl Config {
    /// This one, with what an `old` one that is in use cannot change.
    #[must_use]
    pub fn reloaded(self, old: &Self) -> Self {
        Self {
            measure: old.measure.clone(),
            listen: old.listen.clone(),
            socket: old.socket.clone(),
            state: old.state.clone(),
            ring: old.ring,
            triggers: old.triggers.clone(),
            labels: old.labels,
            max_series: old.max_series,
            schema: old.schema,
            gives_up_privileges: old.gives_up_privileges,
            ..self
        }
    }

    /// What differs from an `old` one and needs a restart, by the names of the options.
    pub fn not_reloaded(&self, old: &Self) -> Vec<&'static str> {
        let tracer = |config: &Self| {
            let tracer = &config.measure.tracer;
            let samples = (tracer.sample_hz, tracer.sample_when);
            (tracer.stages.clone(), samples, tracer.collapse_threshold_ns)
        };
        let overhead = |config: &Self| config.measure.max_overhead;
        let differ = [
            ("stages, sample-hz, sample-when or collapse-threshold", tracer(self) != tracer(old)),
            ("threshold", self.measure.tracer.threshold_ns != old.measure.tracer.threshold_ns),
            ("interval", self.measure.interval != old.measure.interval),
            ("max-overhead", overhead(self) != overhead(old)),
            ("listen", self.listen != old.listen),
            ("socket", self.socket != old.socket),
            ("state", self.state != old.state),
            ("ring", self.ring != old.ring),
            ("trigger", self.triggers != old.triggers),
            ("labels", self.labels != old.labels),
            ("max-series", self.max_series != old.max_series),
            ("native-schema", self.schema != old.schema),
            ("give-up-privileges", self.gives_up_privileges != old.gives_up_privileges),
        ];
        differ.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }
}
