//! What a measurement takes from the machine that it measures.

use std::borrow::Cow;

use latency_common::stage::Stage;
use serde::{Deserialize, Serialize};

use super::{note::Note, stage};

/// What the measurement took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelfCost {
    /// Programs attached.
    pub programs: usize,
    /// Memory of the rows in the kernel, bytes.
    pub row_bytes: u64,
    /// CPU time of this process while it traced, seconds.
    pub user_cpu_s: f64,
    /// CPU time of this process before: reading the kernel's types, loading, attaching; seconds.
    pub startup_cpu_s: f64,
    /// Largest resident memory of this process, bytes.
    pub resident_bytes: u64,
    /// What the programs took in the kernel.
    pub kernel: KernelCost,
}

impl SelfCost {
    /// Adds what another run took. Does not depend on the order: times are whole microseconds,
    /// which as seconds read back exactly for 285 years. What the programs took is left out, since
    /// shares of different runs do not add up.
    pub fn add(&mut self, other: &Self) {
        let sum = |a: f64, b: f64| ((a * 1e6).round() + (b * 1e6).round()) / 1e6;
        self.programs = self.programs.max(other.programs);
        self.row_bytes = self.row_bytes.max(other.row_bytes);
        self.user_cpu_s = sum(self.user_cpu_s, other.user_cpu_s);
        self.startup_cpu_s = sum(self.startup_cpu_s, other.startup_cpu_s);
        self.resident_bytes = self.resident_bytes.max(other.resident_bytes);
        let mut disabled = std::mem::take(&mut self.kernel.disabled);
        disabled.extend(other.kernel.disabled.iter().cloned());
        disabled.sort_by(|a, b| a.stage.cmp(&b.stage).then(a.after_s.total_cmp(&b.after_s)));
        self.kernel = KernelCost { disabled, ..KernelCost::default() };
    }
}

/// What the programs took, by the kernel's run-time statistics. These cost something themselves,
/// all of which is in the figures, so they are switched on for a part of the run only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelCost {
    /// For how long they were on, seconds; 0: never, or the run was too short.
    pub measured_s: f64,
    /// Why they could not be switched on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Note>,
    /// Each program that ran meanwhile.
    pub programs: Vec<ProgramCost>,
    /// Share of the time of all CPUs.
    pub share: f64,
    /// Share of the CPU that had most of the runs, estimated from where events started.
    pub busiest_share: f64,
    /// That CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busiest_cpu: Option<u32>,
    /// Stages that were disabled because of their cost, in order.
    #[serde(alias = "shed")]
    pub disabled: Vec<DisabledStage>,
}

/// What one program took while the statistics were on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgramCost {
    /// Its name.
    pub program: Cow<'static, str>,
    /// Runs.
    pub runs: u64,
    /// Time in them, ns.
    pub ns: u64,
}

impl ProgramCost {
    /// Time of a run, ns.
    pub fn ns_per_run(&self) -> f64 {
        if self.runs == 0 { 0.0 } else { self.ns as f64 / self.runs as f64 }
    }
}

/// A stage that was disabled because all of them together cost too much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DisabledStage {
    /// The stage.
    #[serde(with = "stage")]
    pub stage: Stage,
    /// When, seconds from the start of the run.
    pub after_s: f64,
    /// What all programs took of the busiest CPU then.
    pub share: f64,
    /// The limit.
    #[serde(alias = "allowed")]
    pub limit: f64,
}
