//! What a measurement costs the machine that it runs on.

use std::borrow::Cow;

use latency_common::stage::Stage;
use serde::{Deserialize, Serialize};

use super::{note::Note, stage};

/// The cost of the measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelfCost {
    /// Programs attached.
    pub programs: usize,
    /// Memory of the rows in the kernel, bytes.
    pub row_bytes: u64,
    /// CPU time of this process while it traced, seconds.
    pub user_cpu_s: f64,
    /// CPU time of this process before tracing: reading kernel types, loading, attaching; seconds.
    pub startup_cpu_s: f64,
    /// Largest resident memory of this process, bytes.
    pub resident_bytes: u64,
    /// The cost of the programs in the kernel.
    pub kernel: KernelCost,
}

impl SelfCost {
    /// Adds the cost of another run. Does not depend on the order: times are rounded to
    /// microseconds, which convert to seconds and back exactly for 285 years. The cost of the
    /// programs is left out, since shares of different runs do not add up.
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

impl SelfCost {
    /// The cost of this measurement and of one directly after it, by the same process.
    pub fn continue_with(&mut self, next: &Self) {
        self.user_cpu_s += next.user_cpu_s;
        self.programs = next.programs;
        self.row_bytes = next.row_bytes;
        self.resident_bytes = self.resident_bytes.max(next.resident_bytes);
        let programs = std::mem::take(&mut self.kernel.programs);
        let measured_s = self.kernel.measured_s + next.kernel.measured_s;
        self.kernel = KernelCost { programs, measured_s, ..next.kernel.clone() };
        for program in &next.kernel.programs {
            match self.kernel.programs.iter_mut().find(|known| known.program == program.program) {
                Some(known) => {
                    known.runs += program.runs;
                    known.ns += program.ns;
                }
                None => self.kernel.programs.push(program.clone()),
            }
        }
    }
}

/// The cost of the programs, by the kernel's run-time statistics. The statistics have a cost of
/// their own, which the figures include, so they are switched on for a part of the run only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelCost {
    /// For how long they were on, seconds; 0: never, or the run was too short.
    pub measured_s: f64,
    /// Why they could not be switched on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Note>,
    /// Each program that ran while they were on.
    pub programs: Vec<ProgramCost>,
    /// Share of the time of all CPUs.
    pub share: f64,
    /// Share of the time of the CPU with the most runs, estimated from where events started.
    pub busiest_share: f64,
    /// That CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busiest_cpu: Option<u32>,
    /// Stages that were disabled because of their cost, in order.
    #[serde(alias = "shed")]
    pub disabled: Vec<DisabledStage>,
}

/// The cost of one program while the statistics were on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgramCost {
    /// Its name.
    pub program: Cow<'static, str>,
    /// Number of runs.
    pub runs: u64,
    /// Total time of the runs, ns.
    pub ns: u64,
}

impl ProgramCost {
    /// Mean time of a run, ns.
    pub fn ns_per_run(&self) -> f64 {
        if self.runs == 0 { 0.0 } else { self.ns as f64 / self.runs as f64 }
    }
}

/// A stage that was disabled because the programs of all stages together cost too much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DisabledStage {
    /// The stage.
    #[serde(with = "stage")]
    pub stage: Stage,
    /// When, seconds from the start of the run.
    pub after_s: f64,
    /// Share of the busiest CPU that all programs took then.
    pub share: f64,
    /// The limit.
    #[serde(alias = "allowed")]
    pub limit: f64,
}
