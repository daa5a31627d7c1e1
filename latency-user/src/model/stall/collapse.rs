//! Slow calls of `tcp_collapse`: whose socket it was, and in which state.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::model::series::labels::Labels;

/// One slow call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Collapse {
    /// When it ended by the wall clock, RFC 3339, UTC.
    pub at: String,
    /// When it ended, `CLOCK_MONOTONIC`, ns.
    pub end_ns: u64,
    /// How long it took, ns.
    pub duration_ns: u64,
    /// The CPU on which it ended.
    pub cpu: u32,
    /// The socket whose data was collapsed.
    pub socket: Socket,
    /// The process that has the socket; absent when none was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<SocketOwner>,
    /// Which of the socket's queues was collapsed.
    pub queue: CollapsedQueue,
    /// The socket before the call.
    pub before: SocketState,
    /// Memory of received data after the call, bytes.
    pub rmem_alloc_after: u64,
    /// The queue during whose poll it happened; absent in processes, and where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polled: Option<Labels>,
}

/// A TCP socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Socket {
    /// Own address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// Inode of the network namespace; 0: unknown.
    pub netns: u32,
    /// Inode of the socket; 0: no process has it.
    pub inode: u64,
}

/// The process that has a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOwner {
    /// Id of the process.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Path of its cgroup.
    pub cgroup: String,
    /// Container id, if the path has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Kubernetes' id of the pod, if the path has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// A queue of a TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CollapsedQueue {
    /// `sk_receive_queue`: in sequence, not read by the process yet.
    InOrder,
    /// `out_of_order_queue`: behind a gap.
    OutOfOrder,
}

impl CollapsedQueue {
    /// Its usual name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InOrder => "receive queue",
            Self::OutOfOrder => "out-of-order queue",
        }
    }
}

/// The memory state of a TCP socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SocketState {
    /// `sk_rmem_alloc`: memory of received data, bytes.
    pub rmem_alloc: u64,
    /// `sk_rcvbuf`: the most it may take, bytes.
    pub rcvbuf: u64,
    /// `rcv_ssthresh`: the window that TCP wants to offer, bytes.
    pub rcv_ssthresh: u32,
    /// `window_clamp`: the largest window that it may offer, bytes.
    pub window_clamp: u32,
    /// Packets in `sk_receive_queue`.
    pub queue_len: u32,
    /// Bytes received in sequence that the process has not read: `rcv_nxt - copied_seq`.
    pub payload_bytes: u32,
    /// `payload_bytes / rmem_alloc`: how much of the memory is data. Absent when the out-of-order
    /// queue was collapsed: its data takes memory, but is not in `payload_bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_ratio: Option<f64>,
}

/// The calls of one socket, summed up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SocketTotal {
    /// The socket.
    pub socket: Socket,
    /// As in [`Collapse::owner`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<SocketOwner>,
    /// Number of slow calls.
    pub calls: u64,
    /// Their total time, ns.
    pub sum_ns: u64,
    /// The longest, ns.
    pub max_ns: u64,
    /// Which queue the longest call collapsed; absent in recordings without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_queue: Option<CollapsedQueue>,
    /// The socket before the longest call.
    pub worst: SocketState,
}

impl SocketTotal {
    /// Adds other calls of the same socket.
    pub fn add(&mut self, other: &Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        if other.owner.is_some() {
            self.owner.clone_from(&other.owner);
        }
        if other.max_ns > self.max_ns {
            self.max_ns = other.max_ns;
            self.worst_queue = other.worst_queue;
            self.worst = other.worst;
        }
    }
}
