//! Stalls: single events at or above the threshold, and where their time was spent.

pub mod batch;
pub mod collapse;
pub mod culprit;
pub mod parts;

use latency_common::stage::Stage;
use serde::{Deserialize, Serialize};

use self::{
    batch::Stack,
    culprit::Culprit,
    parts::{Interference, NetRxParts},
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
    /// The functions that it was spent in, worst first, by all of its samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub culprits: Vec<Culprit>,
    /// Where the samples were, most frequent first; at most a few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stacks: Vec<Stack>,
}
