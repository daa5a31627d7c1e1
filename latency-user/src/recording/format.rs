//! The format of a recording, and the names that its writer and reader share.
//!
#![doc = include_str!("FORMAT.md")]

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{
    distribution::Distribution,
    interval::MergedTime,
    run::{SelectedProbe, Transport},
    series::attrs::{NamedBy, QueueAttrs},
    stall::{
        batch::LocatedStack,
        time::{CpuSteal, LocatedTime},
    },
};

/// The first line.
pub const VERSION_LINE: &str = "#[Histogram log format version 1.3]";

/// The line before the first histogram: the names of its columns.
pub const LEGEND: &str =
    "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"";

/// Prefix of a comment with a JSON object; a space and the object follow.
pub const COMMENT: &str = "#[latency-user]";

/// Divisor of the maxima in histogram lines, which are in ms, as other writers have them.
pub const MAX_VALUE_DIVISOR: f64 = 1e6;

/// Kind of the run's header: the fields of [`Run`](crate::model::run::Run).
pub const RUN: &str = "run";

/// Kind of the object after the header: the fields of
/// [`HostSettings`](crate::model::settings::HostSettings).
pub const SETTINGS: &str = "settings";

/// Kind of a stall's object: the fields of [`Stall`](crate::model::stall::Stall).
pub const STALL: &str = "stall";

/// Kind of the object of a slow `tcp_collapse`: the fields of
/// [`Collapse`](crate::model::stall::collapse::Collapse).
pub const COLLAPSE: &str = "collapse";

/// Kind of the object with the stacks of an interval: [`StacksMeta`].
pub const STACKS: &str = "stacks";

/// Kind of an interval's object: [`IntervalMeta`].
pub const INTERVAL: &str = "interval";

/// Kind of the last object: the fields of [`Summary`](crate::model::summary::Summary).
pub const SUMMARY: &str = "summary";

/// Kind of the object after the header of a merged recording: [`Merge`].
pub const MERGE: &str = "merge";

/// What was merged. Everything is a set, a sum or an extreme, so that the result does not depend on
/// the order of merging, nor on how often results are merged again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    /// Number of recordings.
    pub recordings: u64,
    /// How many of them had no end, because their run was killed.
    pub without_end: u64,
    /// How many of them are logs of other programs, whose host is unknown.
    #[serde(default)]
    pub other_logs: u64,
    /// Hosts that they come from.
    pub hosts: BTreeSet<String>,
    /// Releases of the hosts' kernels.
    pub kernels: BTreeSet<String>,
    /// Interfaces whose queues they show.
    pub ifaces: BTreeSet<String>,
    /// The threshold of all of them, ns; `None`: only logs of other programs.
    pub threshold_ns: Option<u64>,
    /// Transports in use.
    pub transports: BTreeSet<Transport>,
    /// How stages were probed, each way once.
    pub probes: BTreeSet<SelectedProbe>,
    /// CPUs of the largest host.
    pub cpus: u32,
    /// Start of the first run, ms since the epoch.
    pub first_ms: u64,
    /// End of the last run, ms since the epoch.
    pub last_ms: u64,
    /// Total time traced in all runs, us.
    pub traced_us: u64,
}

/// Data of one interval that its histograms cannot hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IntervalMeta {
    /// Start of the interval, seconds since `StartTime`.
    pub start_s: f64,
    /// Length of the interval, seconds.
    pub duration_s: f64,
    /// What the hypervisor took of each CPU, where it took something or a stall ended; absent if
    /// it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steal: Option<Vec<CpuSteal>>,
    /// In merged recordings: of how many recordings it is the sum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<MergedTime>,
    /// By tag: one entry for each histogram line of the interval.
    pub series: BTreeMap<String, SeriesMeta>,
}

/// The stacks and the time of the stalls of one interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StacksMeta {
    /// Each stack once.
    pub stacks: Vec<LocatedStack>,
    /// Their time; absent in older recordings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<Vec<LocatedTime>>,
}

/// Data of one series that its histogram cannot hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SeriesMeta {
    /// Sum of all durations, ns, exact.
    pub sum_ns: u64,
    /// Largest duration, ns.
    pub max_ns: u64,
    /// Durations at or above the run's threshold.
    pub over_threshold: u64,
    /// Packets processed by NAPI polls.
    pub work: u64,
    /// The kernel's id of the NAPI instance, of queues that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub napi_id: Option<u32>,
    /// The hard IRQ that schedules the queue, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub irq: Option<u32>,
    /// The evidence for the number of the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named_by: Option<NamedBy>,
}

impl SeriesMeta {
    /// The data of a series that its histogram cannot hold.
    pub(super) fn new(attrs: QueueAttrs, distribution: &Distribution) -> Self {
        Self {
            sum_ns: distribution.sum_ns,
            max_ns: distribution.max_ns,
            over_threshold: distribution.over_threshold,
            work: distribution.work,
            napi_id: attrs.napi_id,
            irq: attrs.irq,
            named_by: attrs.named_by,
        }
    }

    /// What is known of the queue.
    pub(super) fn attrs(&self) -> QueueAttrs {
        QueueAttrs { napi_id: self.napi_id, irq: self.irq, named_by: self.named_by }
    }
}
