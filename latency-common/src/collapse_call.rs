//! Calls of `tcp_collapse` in progress, and the socket before each.

/// The state of a TCP socket before a call of `tcp_collapse`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketBefore {
    /// `sk_backlog.rmem_alloc`, bytes.
    pub rmem_alloc: u32,
    /// `sk_rcvbuf`, bytes.
    pub rcvbuf: u32,
    /// `rcv_ssthresh`, bytes.
    pub rcv_ssthresh: u32,
    /// `window_clamp`, bytes.
    pub window_clamp: u32,
    /// `sk_receive_queue.qlen`, packets.
    pub queue_len: u32,
    /// `rcv_nxt - copied_seq`, bytes.
    pub payload_bytes: u32,
}

/// One call of `tcp_collapse` in progress.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CollapseCall {
    /// Its start, ns.
    pub start_ns: u64,
    /// Address of the socket.
    pub sock: u64,
    /// The socket at that time.
    pub before: SocketBefore,
    /// 1: the out-of-order queue is collapsed; 0: the receive queue.
    pub out_of_order: u32,
    /// Explicit padding.
    pub reserved: u32,
}

impl CollapseCall {
    /// No call.
    pub const NONE: Self = Self {
        start_ns: 0,
        sock: 0,
        before: SocketBefore {
            rmem_alloc: 0,
            rcvbuf: 0,
            rcv_ssthresh: 0,
            window_clamp: 0,
            queue_len: 0,
            payload_bytes: 0,
        },
        out_of_order: 0,
        reserved: 0,
    };
}

/// Calls of `tcp_collapse` in progress in one task: its own, and one by a softirq that interrupted
/// it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CollapseStack {
    /// Number of calls in progress: 1 or 2.
    pub depth: u64,
    /// The calls, outermost first.
    pub calls: [CollapseCall; 2],
}

const _: () = assert!(size_of::<CollapseStack>() == 8 + 2 * 48);
