//! Records in the stall ring buffer. Each starts with its [`RecordKind`].
//!
//! Fields are in native byte order and in declaration order, without hidden padding.

use crate::{
    collapse_call::SocketBefore,
    cpu_state::{INTERFERENCE_SOURCES, NetRxRun, TasksInRun, TimeWithin},
    task_record::TaskRecord,
};

/// The kind of a record.
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

/// Row index that means "none".
pub const NO_ROW: u32 = u32::MAX;

/// One event at or above the threshold.
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
    /// Its start, `CLOCK_MONOTONIC`, ns.
    pub start_ns: u64,
    /// Its end, ns.
    pub end_ns: u64,
    /// The task in whose context it ended.
    pub task: TaskRecord,
    /// Breakdown of the CPU's latest `net_rx` run (for a `net_rx` stall: of this stall).
    pub net_rx_run: NetRxRun,
    /// Time others ran while NET_RX waited. Valid only where `span_start_ns == start_ns`; other
    /// entries are from an earlier wait.
    pub interference: [TimeWithin; INTERFERENCE_SOURCES],
    /// Hard IRQs during the run of NET_RX. Valid only if `span_start_ns == start_ns`.
    pub irqs_in_run: TimeWithin,
    /// Other tasks during the run of NET_RX. Valid only if its `span_start_ns == start_ns`.
    pub tasks_in_run: TasksInRun,
    /// Last tick of the sampler on this CPU, ns; 0: none yet.
    pub last_tick_ns: u64,
}

const _: () = assert!(
    size_of::<StallRecord>()
        == 32
            + 24
            + size_of::<NetRxRun>()
            + (INTERFERENCE_SOURCES + 1) * size_of::<TimeWithin>()
            + size_of::<TasksInRun>()
            + 8
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
    /// Duration, ns.
    pub duration_ns: u64,
    /// Inode of the socket; 0: no process has it open.
    pub inode: u64,
    /// Inode of the network namespace; 0: unknown.
    pub netns: u32,
    /// Address family: 2 IPv4, 10 IPv6.
    pub family: u32,
    /// Local port, host order.
    pub local_port: u32,
    /// Remote port, host order.
    pub remote_port: u32,
    /// Local address, network order; for IPv4, the first four bytes.
    pub local: [u8; 16],
    /// Remote address.
    pub remote: [u8; 16],
    /// The socket before the call.
    pub before: SocketBefore,
    /// `sk_backlog.rmem_alloc` after the call, bytes.
    pub rmem_alloc_after: u32,
    /// 1: the out-of-order queue was collapsed; 0: the receive queue.
    pub out_of_order: u32,
    /// Row index of the NAPI instance being polled; [`NO_ROW`]: none, or unknown.
    pub poll_row: u32,
    /// Explicit padding.
    pub reserved: u32,
}

const _: () = assert!(size_of::<CollapseRecord>() == 120);

/// Maximum number of frames in a sample.
pub const FRAMES: usize = 64;

/// What a CPU was doing at one moment of a stall.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleRecord {
    /// [`RecordKind::Sample`].
    pub kind: u32,
    /// The CPU.
    pub cpu: u32,
    /// Time of the sample, `CLOCK_MONOTONIC`, ns.
    pub at_ns: u64,
    /// Start of the longest span in progress, ns.
    pub since_ns: u64,
    /// The tick before this one on this CPU, ns; 0: none.
    pub previous_tick_ns: u64,
    /// The current task of the CPU.
    pub task: TaskRecord,
    /// Number of frames.
    pub depth: u64,
    /// Kernel addresses, innermost first.
    pub frames: [u64; FRAMES],
}

const _: () = assert!(size_of::<SampleRecord>() == 64 + 8 * FRAMES);
