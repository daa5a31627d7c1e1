//! What a kernel, its privileges and its NICs allow.

use serde::Serialize;

use super::{method::Method, note::Note, run::Sampling, stage::StageName};

/// Everything that `doctor` found.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// Release of the kernel.
    pub kernel: String,
    /// Version of this program.
    pub version: &'static str,
    /// Possible CPUs.
    pub cpus: u32,
    /// Missing privileges, each with what cannot be done without it.
    pub missing_privileges: Vec<Note>,
    /// Whether methods were tried out by loading and attaching them, which needs privileges.
    pub tried: bool,
    /// The capabilities that `trace` keeps after attaching, if it has them; it drops all others.
    pub kept_privileges: Vec<String>,
    /// Whether the kernel can refuse system calls that `trace` does not need.
    pub filters_system_calls: bool,
    /// Whether its eBPF has atomic operations that return a value (Linux 5.12); `None`: not tried.
    pub fetch_atomics: Option<bool>,
    /// The stages.
    pub stages: Vec<StageDiagnosis>,
    /// How stacks of stalls would be sampled by each clock, the default one first; empty: that cannot
    /// be known without privileges, or no stage works.
    pub sampling: Vec<Sampling>,
    /// The interfaces of this network namespace.
    pub interfaces: Vec<InterfaceDiagnosis>,
}

/// What is possible for one stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageDiagnosis {
    /// Name of the stage.
    pub stage: StageName,
    /// The method that `--probes auto` would use; `None`: none works.
    pub would_use: Option<Method>,
    /// What its numbers mean on this kernel, by any method.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// Every method of the stage, best first.
    pub methods: Vec<MethodDiagnosis>,
}

/// Whether one method works.
#[derive(Clone, Debug, Serialize)]
pub struct MethodDiagnosis {
    /// The method.
    pub method: Method,
    /// What it is attached to.
    pub at: String,
    /// Whether it works; `None`: that cannot be known without privileges.
    pub works: Option<bool>,
    /// Why it does not, or what to know about its numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
}

/// How the queues of an interface would be named.
#[derive(Clone, Debug, Serialize)]
pub struct InterfaceDiagnosis {
    /// Name of the interface.
    pub name: String,
    /// RX queues that it has.
    pub rx_queues: u32,
    /// RX queues whose NAPI id the kernel reports; `None`: it was not asked or cannot answer.
    pub queues_by_netlink: Option<usize>,
    /// NAPI instances that the kernel lists; `None` as above.
    pub instances: Option<usize>,
    /// RX queues whose hard IRQ is known.
    pub queues_with_irq: usize,
}
