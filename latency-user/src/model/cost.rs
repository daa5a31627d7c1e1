//! What a measurement takes from the machine that it measures.

use std::borrow::Cow;

use latency_common::stage::Stage;
use serde::{Deserialize, Serialize};

use super::stage;

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

/// What the programs took, by the kernel's run-time statistics. These cost something themselves,
/// all of which is in the figures, so they are switched on for a part of the run only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelCost {
    /// For how long they were on, seconds; 0: never, or the run was too short.
    pub measured_s: f64,
    /// Why they could not be switched on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Each program that ran meanwhile.
    pub programs: Vec<ProgramCost>,
    /// Share of the time of all CPUs.
    pub share: f64,
    /// Share of the CPU that had most of the runs, estimated from where intervals began.
    pub busiest_share: f64,
    /// That CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busiest_cpu: Option<u32>,
    /// Stages that were given up because of their cost, in order.
    pub shed: Vec<Shed>,
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

/// A stage that was given up because all of them together cost too much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shed {
    /// The stage.
    #[serde(with = "stage")]
    pub stage: Stage,
    /// When, seconds from the begin of the run.
    pub after_s: f64,
    /// What all programs took of the busiest CPU then.
    pub share: f64,
    /// What was allowed.
    pub allowed: f64,
}
