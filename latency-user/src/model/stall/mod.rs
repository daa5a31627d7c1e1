//! Stalls: single events at or above the threshold, and where their time was spent.

pub mod batch;
pub mod collapse;
pub mod culprit;
pub mod parts;
pub mod time;

use latency_common::stage::Stage;
use serde::{Deserialize, Serialize};

use self::{
    batch::Stack,
    culprit::Culprit,
    parts::{Interference, NetRxParts},
    time::StallTime,
};
use super::{series::labels::Labels, stage};

/// One stall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stall {
    /// When it ended by the wall clock, RFC 3339, UTC.
    pub at: String,
    /// When it started, `CLOCK_MONOTONIC`, ns.
    #[serde(alias = "begin_ns")]
    pub start_ns: u64,
    /// When it ended, `CLOCK_MONOTONIC`, ns.
    pub end_ns: u64,
    /// What was timed.
    #[serde(with = "stage")]
    pub stage: Stage,
    /// The CPU on which it ended.
    pub cpu: u32,
    /// The queue or IRQ.
    #[serde(flatten)]
    pub labels: Labels,
    /// How long it lasted, ns.
    pub duration_ns: u64,
    /// How a run of `net_rx_action` was spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_rx: Option<NetRxParts>,
    /// What ran on the CPU while NET_RX waited for it.
    #[serde(default, alias = "rx_wait", skip_serializing_if = "Option::is_none")]
    pub interference: Option<Interference>,
    /// Samples taken while it was in progress.
    pub samples: u64,
    /// Time in which the sampling clock was overdue, ns: the CPU did not run, or interrupts were
    /// off. Absent if stacks were not sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsampled_ns: Option<u64>,
    /// Time that the samples stand for, ns: see [`StallTime::sampled_ns`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled_ns: Option<u64>,
    /// What the hypervisor took of its CPU in the interval in which it ended, ns, in steps of a
    /// clock tick. Absent if it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steal_ns: Option<u64>,
    /// The functions that it was spent in, worst first, by all of its samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub culprits: Vec<Culprit>,
    /// Where the samples were, most frequent first; at most a few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stacks: Vec<Stack>,
}

impl Stall {
    /// Its time.
    pub fn time(&self) -> StallTime {
        let in_run = self.net_rx.as_ref().and_then(|parts| parts.irqs);
        let in_wait = self.interference.as_ref().and_then(|interference| interference.irqs);
        StallTime {
            stalls: 1,
            stalled_ns: self.duration_ns,
            unsampled_ns: self.unsampled_ns.unwrap_or(0),
            sampled_ns: self.sampled_ns.unwrap_or(0),
            irq_ns: in_run.or(in_wait).map_or(0, |irqs| irqs.ns),
            unclocked_ns: 0,
        }
    }
}
