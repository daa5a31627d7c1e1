//! Settings and counters of a network interface that the kernel reports over netlink and ioctl.
//!
//! Owns the types and the trait. `ethtool` asks the live kernel; a capture holds its answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An answer, or why there is none.
pub type Answer<T> = Result<T, String>;

/// All answers about one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Its name.
    pub name: String,
    /// Name of its driver.
    #[serde(default = "not_captured")]
    pub driver: Answer<String>,
    /// Sizes of its rings.
    #[serde(default = "not_captured")]
    pub rings: Answer<Rings>,
    /// Numbers of its queues.
    #[serde(default = "not_captured")]
    pub channels: Answer<Channels>,
    /// When its interrupts are raised.
    #[serde(default = "not_captured")]
    pub coalescing: Answer<Coalescing>,
    /// Its offloads.
    #[serde(default = "not_captured")]
    pub features: Answer<Features>,
    /// Counters of the driver, in its order and by its names.
    #[serde(default = "not_captured")]
    pub counters: Answer<Vec<(String, u64)>>,
    /// Packets that each RX queue received, as the kernel counts them (netdev qstats).
    #[serde(default = "not_captured")]
    pub queue_packets: Answer<BTreeMap<u32, u64>>,
    /// Its queueing disciplines.
    #[serde(default = "not_captured")]
    pub qdiscs: Answer<Vec<Qdisc>>,
}

fn not_captured<T>() -> Answer<T> {
    Err("it is not in this capture".into())
}

/// Descriptors in each ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rings {
    /// Received packets, now.
    pub rx: Option<u32>,
    /// Received packets, at most.
    pub rx_max: Option<u32>,
    /// Packets to send, now.
    pub tx: Option<u32>,
    /// Packets to send, at most.
    pub tx_max: Option<u32>,
}

/// Numbers of queues of each kind. A driver reports only the kinds that it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    /// Receiving only, now.
    pub rx: Option<u32>,
    /// Receiving only, at most.
    pub rx_max: Option<u32>,
    /// Sending only, now.
    pub tx: Option<u32>,
    /// Sending only, at most.
    pub tx_max: Option<u32>,
    /// Both ways, now.
    pub combined: Option<u32>,
    /// Both ways, at most.
    pub combined_max: Option<u32>,
}

/// Interrupt coalescing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coalescing {
    /// Longest delay of the interrupt after a received packet, us.
    pub rx_usecs: Option<u32>,
    /// Received packets after which the interrupt is raised at once.
    pub rx_frames: Option<u32>,
    /// Whether the driver adapts both to the load.
    pub adaptive_rx: Option<bool>,
    /// Longest delay of the interrupt after a sent packet, us.
    pub tx_usecs: Option<u32>,
    /// Sent packets after which the interrupt is raised at once.
    pub tx_frames: Option<u32>,
    /// Whether the driver adapts both to the load.
    pub adaptive_tx: Option<bool>,
}

/// Offloads by the kernel's names, such as `rx-gro`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// Offloads that are on.
    pub active: Vec<String>,
    /// Offloads that can be changed.
    pub changeable: Vec<String>,
    /// Changeable offloads that were requested. A requested offload may be off because another
    /// prevents it.
    #[serde(default)]
    pub wanted: Vec<String>,
    /// Offloads that this kernel has a name for.
    #[serde(default)]
    pub known: Vec<String>,
}

/// A queueing discipline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qdisc {
    /// Its kind, such as `fq`.
    pub kind: String,
    /// Whether it is the root of the interface.
    pub root: bool,
    /// Packets dropped.
    pub drops: u32,
    /// Bytes waiting.
    pub backlog: u32,
}

/// Reads settings and counters of interfaces.
pub trait NicDirectory {
    /// Everything about the interface `name`.
    fn nic(&mut self, name: &str) -> Nic;
}
