//! Where the time of a stall was spent: the parts of a run of NET_RX, and what ran during a wait
//! for it.

use serde::{Deserialize, Serialize};

use crate::model::series::labels::Labels;

/// How one run of `net_rx_action` was spent. Polls, `more_polls_ns` and `rest_ns` add up to the
/// stall's duration; `collapse` is inside the polls, `wait_ns` before all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetRxParts {
    /// From the raise of NET_RX to this run; absent when it was not timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ns: Option<u64>,
    /// The first seven NAPI polls and the longest of the others, in their order; absent when
    /// polls were not timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polls: Option<Vec<PollPart>>,
    /// Number of polls that are not in `polls`.
    pub more_polls: u64,
    /// Their time, ns.
    pub more_polls_ns: u64,
    /// Calls of `tcp_collapse`; absent when they were not timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collapse: Option<CollapsePart>,
    /// Time outside of polls, ns.
    pub rest_ns: u64,
    /// Hard IRQs that were handled meanwhile, in polls or outside of them; absent when they were
    /// not timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irqs: Option<IrqPart>,
    /// Other tasks that ran meanwhile; absent when none did, as on kernels whose softirqs cannot be
    /// preempted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TasksPart>,
}

/// Other tasks that ran during a run of NET_RX, which they preempted or which waited for a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TasksPart {
    /// How often a task was switched to.
    pub runs: u64,
    /// Their time within the stall, ns.
    pub ns: u64,
    /// The task that ran longest in one go.
    pub longest: Task,
    /// How long, ns.
    pub longest_ns: u64,
}

/// One NAPI poll of a stall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollPart {
    /// The queue.
    #[serde(flatten)]
    pub labels: Labels,
    /// How long it took, ns.
    pub ns: u64,
    /// Packets that it processed.
    pub work: u32,
    /// Packets that it was allowed to process; absent when it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<u32>,
}

/// The calls of `tcp_collapse` in a stall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollapsePart {
    /// Number of calls.
    pub calls: u64,
    /// Their time, ns.
    pub ns: u64,
}

/// What ran on the CPU while NET_RX waited for it. The parts may overlap: a hard IRQ interrupts a
/// vector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interference {
    /// The task that ran when NET_RX was finally entered.
    pub task: Task,
    /// The tasks that samples found running, outside of softirqs, most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskShare>,
    /// Samples that found a softirq running; the task that it interrupted is not counted.
    #[serde(default)]
    pub in_softirq: u64,
    /// Softirq vectors that ran meanwhile, longest first; NET_RX here is its previous run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vectors: Vec<VectorPart>,
    /// Hard IRQs that were handled meanwhile; absent when they were not timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irqs: Option<IrqPart>,
}

/// A task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Task {
    /// Id of the thread; 0 is idle.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

/// How often samples found a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskShare {
    /// The task.
    #[serde(flatten)]
    pub task: Task,
    /// Number of samples.
    pub samples: u64,
}

/// The runs of a softirq vector during a wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorPart {
    /// Its name, as in `/proc/softirqs`.
    pub vector: String,
    /// Number of runs.
    pub runs: u64,
    /// Their time within the wait, ns.
    pub ns: u64,
}

/// The hard IRQs during a stall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IrqPart {
    /// Number of handler runs.
    pub runs: u64,
    /// Their time within the wait, ns.
    pub ns: u64,
}
