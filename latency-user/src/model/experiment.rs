//! The outcome of an experiment.

use serde::Serialize;

use super::{
    comparison::Comparison, duration_classes::DurationClasses, note::Note, stall::culprit::Culprit,
    stall::time::StallTime,
};
/// What an experiment concludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// Stalls are rarer, and nothing else suffered.
    Improved,
    /// Stalls are rarer, but drops or retransmits rose, or throughput fell.
    ImprovedAtACost,
    /// Stalls are more frequent, a guard got worse, or a window had to end early.
    Worse,
    /// No difference beyond chance.
    NoDifferenceShown,
    /// The windows do not allow an answer.
    NotComparable,
}

/// Rates other than that of stalls, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Packets dropped by interfaces and backlogs.
    pub drops: f64,
    /// TCP segments retransmitted.
    pub retransmits: f64,
    /// Bytes received.
    pub bytes: f64,
    /// Packets received: the load, which ought to be the same with the change and without.
    pub packets: f64,
}

/// A guard without the change and with it, per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Guard {
    /// What is counted.
    pub name: &'static str,
    /// Mean of the windows without the change.
    pub before: f64,
    /// Mean of the windows with it.
    pub after: f64,
    /// Whether it got worse.
    pub worse: bool,
}

/// A window.
#[derive(Clone, Debug, Serialize)]
pub struct WindowSummary {
    /// Whether the change was in place.
    pub changed: bool,
    /// Its recording.
    pub recording: String,
    /// How long it lasted, seconds.
    pub duration_s: f64,
    /// Runs of `net_rx_action`.
    pub events: u64,
    /// Runs at or above the threshold.
    pub stalls: u64,
    /// The longest run, ns.
    pub max_ns: u64,
    /// The guards.
    pub rates: Rates,
}

/// The state of the setting after the experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// It holds its original value.
    Original,
    /// It holds the new value, and a further window confirmed it.
    Kept,
    /// It was to be kept, but the further window did not confirm it: it holds its original value.
    NotConfirmed,
}

/// A setting and its two values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// The kernel's file, or the setting of an interface as the command line names it.
    pub knob: String,
    /// What it held before.
    pub old: String,
    /// The requested value.
    pub requested: String,
    /// The value read back after writing: a driver may round it.
    pub effective: String,
}

/// Everything that an experiment found.
#[derive(Clone, Debug, Serialize)]
pub struct Experiment {
    /// The conclusion.
    pub conclusion: Conclusion,
    /// The state of the setting afterwards.
    pub setting: Setting,
    /// What was changed.
    pub changed: Vec<Changed>,
    /// Why a window ended early; absent when none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aborted: Option<Note>,
    /// Drops, retransmits and throughput.
    pub guards: Vec<Guard>,
    /// The windows in their order.
    pub windows: Vec<WindowSummary>,
    /// Runs of `net_rx_action` by duration, without the change and with it.
    pub duration_classes: [DurationClasses; 2],
    /// The functions that stalls without the change were spent in, worst first.
    pub culprits: Vec<Culprit>,
    /// The time of those stalls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall_time: Option<StallTime>,
    /// Without the change and with it.
    pub comparison: Comparison,
}
