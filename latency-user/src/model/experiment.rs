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
    /// Stalls are more frequent, or a guard got worse.
    Worse,
    /// A window with the change had to end early, and whether it was the change is not shown.
    EndedEarly,
    /// This process was stopped or hung while the setting was changed.
    Interrupted,
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
    /// Probability of the difference by chance (p-value); absent with too few windows.
    pub p: Option<f64>,
    /// Whether it got worse, by more than chance.
    pub worse: bool,
}

/// What a window is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The first one, without the change: it tells the abort rule what is usual.
    LeadIn,
    /// Without the change.
    Unchanged,
    /// With it.
    Changed,
}

/// A window.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WindowSummary {
    /// Whether the change was in place.
    pub changed: bool,
    /// Whether it is the lead-in, which is in no test.
    pub lead_in: bool,
    /// When it started, RFC 3339.
    pub started_at: String,
    /// Its recording.
    pub recording: String,
    /// How long it lasted, seconds.
    pub duration_s: f64,
    /// Runs of `net_rx_action`.
    pub events: u64,
    /// Runs at or above the threshold.
    pub stalls: u64,
    /// Stalls a second of the stage that decided, without those of the hypervisor.
    pub stalls_per_second: f64,
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
    /// It holds the new value.
    Kept,
}

/// Windows with the change, compared with the nearest ones without it on either side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Neighbours {
    /// Had fewer stalls a second than either.
    pub fewer: usize,
    /// Had more than either.
    pub more: usize,
    /// Windows with the change.
    pub of: usize,
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
    /// Seed of the order and the pauses.
    pub seed: u64,
    /// Windows that were planned after the lead-in.
    pub planned: usize,
    /// How the windows with the change compare with their neighbours.
    pub neighbours: Neighbours,
    /// Why a window ended early; absent when none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aborted: Option<Note>,
    /// Why the experiment ended before its last window without a verdict; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given_up: Option<Note>,
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

/// What an experiment would take, by windows without a change.
#[derive(Clone, Debug, Serialize)]
pub struct ExperimentPlan {
    /// The windows.
    pub windows: Vec<WindowSummary>,
    /// The stage with the most stalls; absent if there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Its stalls a window, on average, without those of the hypervisor.
    pub stalls_per_window: f64,
    /// How much windows differ: the standard deviation of the logarithm of their rates.
    pub variation: f64,
    /// Windows, half of them with the change, that show a halving in 8 of 10 tries; absent: not
    /// known, or out of reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows_for_halving: Option<usize>,
    /// How long such an experiment takes, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<f64>,
}
