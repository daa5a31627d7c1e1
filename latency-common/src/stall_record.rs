//! Records: what travels through the ring buffer of stalls. Each opens with its [`RecordKind`].
//!
//! Fields lie in the machine's byte order and in the order given here, without hidden padding.

use crate::{
    collapse_call::SocketBefore,
    cpu_state::{INTERFERENCE_SOURCES, InterferenceTime, NetRxRun},
};

/// What a record is about.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A [`StallRecord`].
    Stall = 1,
    /// A [`CollapseRecord`].
    Collapse = 2,
    /// A [`SampleRecord`].
    Sample = 3,
}

impl TryFrom<u32> for RecordKind {
    type Error = u32;

    /// The kind with this discriminant, or the number itself when there is none.
    fn try_from(value: u32) -> Result<Self, u32> {
        match value {
            1 => Ok(Self::Stall),
            2 => Ok(Self::Collapse),
            3 => Ok(Self::Sample),
            other => Err(other),
        }
    }
}

/// Length of a task's name with its closing zero (`TASK_COMM_LEN`).
pub const COMM_LENGTH: usize = 16;

/// A task.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskRecord {
    /// Id of the thread.
    pub pid: u32,
    /// Explicit padding.
    pub reserved: u32,
    /// Its name, closed by zeros.
    pub comm: [u8; COMM_LENGTH],
}

/// A row index that means: none.
pub const NO_ROW: u32 = u32::MAX;

/// One interval at or above the threshold.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallRecord {
    /// [`RecordKind::Stall`].
    pub kind: u32,
    /// A [`crate::stage::Stage`].
    pub stage: u32,
    /// The CPU on which it ended.
    pub cpu: u32,
    /// Index of the row that counts it.
    pub row: u32,
    /// Its begin, `CLOCK_MONOTONIC`, ns.
    pub start_ns: u64,
    /// Its end.
    pub end_ns: u64,
    /// The task in whose context it ended.
    pub task: TaskRecord,
    /// Breakdown of the CPU's latest `net_rx` run (for a `net_rx` stall: of this stall).
    pub net_rx_run: NetRxRun,
    /// Time that others ran while NET_RX waited. Valid only where `wait_start_ns == start_ns`; other
    /// entries are from an earlier wait.
    pub interference: [InterferenceTime; INTERFERENCE_SOURCES],
}

const _: () = assert!(
    size_of::<StallRecord>()
        == 32 + 24 + size_of::<NetRxRun>() + INTERFERENCE_SOURCES * size_of::<InterferenceTime>()
);

/// One slow call of `tcp_collapse`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollapseRecord {
    /// [`RecordKind::Collapse`].
    pub kind: u32,
    /// The CPU on which it ended.
    pub cpu: u32,
    /// Its end, `CLOCK_MONOTONIC`, ns.
    pub end_ns: u64,
    /// How long it took, ns.
    pub duration_ns: u64,
    /// Inode of the socket; 0: no process has it.
    pub inode: u64,
    /// Inode of the network namespace; 0: unknown.
    pub netns: u32,
    /// Address family: 2 IPv4, 10 IPv6.
    pub family: u32,
    /// Own port, host order.
    pub local_port: u32,
    /// The peer's port, host order.
    pub remote_port: u32,
    /// Own address, network order; of IPv4, the first four bytes.
    pub local: [u8; 16],
    /// The peer's address.
    pub remote: [u8; 16],
    /// The socket before the call.
    pub before: SocketBefore,
    /// `sk_backlog.rmem_alloc` after the call, bytes.
    pub rmem_alloc_after: u32,
    /// 1: the out-of-order queue was collapsed; 0: the receive queue.
    pub out_of_order: u32,
    /// Index of the row of the NAPI instance that is being polled; [`NO_ROW`]: none, or unknown.
    pub poll_row: u32,
    /// Explicit padding.
    pub reserved: u32,
}

const _: () = assert!(size_of::<CollapseRecord>() == 120);

/// Frames that a sample has room for.
pub const FRAMES: usize = 64;

/// What a CPU was doing at one moment of a stall.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleRecord {
    /// [`RecordKind::Sample`].
    pub kind: u32,
    /// The CPU.
    pub cpu: u32,
    /// When, `CLOCK_MONOTONIC`, ns.
    pub at_ns: u64,
    /// Begin of the longest of what was under way, ns.
    pub since_ns: u64,
    /// The task in whose context the CPU was.
    pub task: TaskRecord,
    /// Number of frames.
    pub depth: u64,
    /// Addresses in the kernel, the deepest first.
    pub frames: [u64; FRAMES],
}

const _: () = assert!(size_of::<SampleRecord>() == 56 + 8 * FRAMES);
