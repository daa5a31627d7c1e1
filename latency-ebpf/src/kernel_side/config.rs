//! Settings of a run. The loader writes them before the programs are loaded and the kernel
//! freezes them, so the verifier knows their values and removes the branches they switch off.

use core::cell::UnsafeCell;

use aya_ebpf::Global;
use latency_common::stage::Stage;

/// Marks a field that this kernel's structs do not have.
const ABSENT: u32 = u32::MAX;

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $kind:ty = $default:expr;)*) => {
        $($(#[$doc])*
        #[unsafe(no_mangle)]
        pub(super) static $name: Global<$kind> = Global::new($default);)*
    };
}

settings! {
    /// Stages that are timed, by whatever method: [`Stage::bit`]s.
    STAGES: u32 = 0;
    /// Stages that are timed by tracepoints.
    TRACEPOINT_STAGES: u32 = 0;
    /// Durations at or above it are stalls, ns.
    THRESHOLD_NS: u64 = 1_000_000;
    /// Count events in rows.
    COUNT_IN_ROWS: u32 = 1;
    /// Send events through the ring buffer.
    SEND_EVENTS: u32 = 0;
    /// Unread bytes in the ring buffer above which its reader is woken.
    WAKE_AT_BYTES: u64 = 0;
    /// Stalls and slow collapses that a CPU may report in one second.
    RECORDS_PER_SECOND: u64 = 0;
    /// Unread bytes in the ring buffer of records above which its reader is woken.
    RECORDS_WAKE_AT_BYTES: u64 = 0;
    /// What is under way for so long is sampled, ns.
    SAMPLE_AFTER_NS: u64 = 0;
    /// Calls of `tcp_collapse` at or above it are reported with their socket, ns.
    COLLAPSE_THRESHOLD_NS: u64 = 500_000;
    /// Rows in the block of each CPU.
    ROWS_PER_CPU: u32 = 0;
    /// Index of the first slot's row.
    SLOT_BASE: u32 = 0;
    /// Number of slots.
    SLOTS: u32 = 0;
    /// Offset of `napi_struct.napi_id`.
    NAPI_ID: u32 = ABSENT;
    /// Offset of `napi_struct.dev`.
    NAPI_DEV: u32 = ABSENT;
    /// Offset of `napi_struct.weight`.
    NAPI_WEIGHT: u32 = ABSENT;
    /// Offset of `net_device.ifindex`.
    DEV_IFINDEX: u32 = ABSENT;
    /// Offset of `net_device.name`.
    DEV_NAME: u32 = ABSENT;
    /// Offset of `net_device.nd_net`.
    DEV_NET: u32 = ABSENT;
    /// Offset of `net.ns.inum`.
    NET_INUM: u32 = ABSENT;
    /// Offset of `irq_desc.irq_data.irq`.
    DESC_IRQ: u32 = ABSENT;
    /// Offset of `sk_buff.napi_id`.
    SKB_NAPI_ID: u32 = ABSENT;
    /// Offset of `sk_buff.queue_mapping`.
    SKB_QUEUE_MAPPING: u32 = ABSENT;
    /// Offset of `sock.__sk_common.skc_family`.
    SK_FAMILY: u32 = ABSENT;
    /// Offset of `sock.__sk_common.skc_num`: the own port, host order.
    SK_NUM: u32 = ABSENT;
    /// Offset of `sock.__sk_common.skc_dport`: the peer's port, network order.
    SK_DPORT: u32 = ABSENT;
    /// Offset of `sock.__sk_common.skc_rcv_saddr`.
    SK_RCV_SADDR: u32 = ABSENT;
    /// Offset of `sock.__sk_common.skc_daddr`.
    SK_DADDR: u32 = ABSENT;
    /// Offset of `sock.__sk_common.skc_v6_rcv_saddr`.
    SK_V6_RCV_SADDR: u32 = ABSENT;
    /// Offset of `sock.__sk_common.skc_v6_daddr`.
    SK_V6_DADDR: u32 = ABSENT;
    /// Offset of `sock.__sk_common.skc_net.net`.
    SK_NET: u32 = ABSENT;
    /// Offset of `sock.sk_socket`.
    SK_SOCKET: u32 = ABSENT;
    /// Offset of `socket_alloc.vfs_inode`, counted from its `socket`.
    SOCKET_INODE: u32 = ABSENT;
    /// Offset of `inode.i_ino`.
    INODE_NUMBER: u32 = ABSENT;
    /// Offset of `sock.sk_backlog.rmem_alloc`.
    SK_RMEM_ALLOC: u32 = ABSENT;
    /// Offset of `sock.sk_rcvbuf`.
    SK_RCVBUF: u32 = ABSENT;
    /// Offset of `sock.sk_receive_queue.qlen`.
    SK_QUEUE_LEN: u32 = ABSENT;
    /// Offset of `tcp_sock.rcv_ssthresh`.
    TCP_RCV_SSTHRESH: u32 = ABSENT;
    /// Offset of `tcp_sock.window_clamp`.
    TCP_WINDOW_CLAMP: u32 = ABSENT;
    /// Offset of `tcp_sock.rcv_nxt`.
    TCP_RCV_NXT: u32 = ABSENT;
    /// Offset of `tcp_sock.copied_seq`.
    TCP_COPIED_SEQ: u32 = ABSENT;
}

/// Stages that were given up during the run, because they cost too much: [`Stage::bit`]s. The
/// one setting that the loader changes while programs run.
#[unsafe(no_mangle)]
static SHED: Shed = Shed(UnsafeCell::new(0));

#[repr(transparent)]
struct Shed(UnsafeCell<u32>);

// SAFETY: written by user space only, and read in one piece.
unsafe impl Sync for Shed {}

/// Whether `stage` was given up. Programs of its own are detached then; asked for where others
/// share them, off the path of packets.
#[inline(always)]
pub(super) fn is_shed(stage: Stage) -> bool {
    // SAFETY: the static is valid; volatile, for user space changes it.
    unsafe { SHED.0.get().read_volatile() & stage.bit() != 0 }
}

/// Whether `stage` is timed at all.
#[inline(always)]
pub(super) fn is_on(stage: Stage) -> bool {
    STAGES.load() & stage.bit() != 0
}

/// Whether `stage` is timed by tracepoints.
#[inline(always)]
pub(super) fn by_tracepoint(stage: Stage) -> bool {
    TRACEPOINT_STAGES.load() & stage.bit() != 0
}

/// Address of the field at `offset` of the kernel struct at `base`; `None`: it has none.
#[inline(always)]
pub(super) fn field_address(base: u64, offset: &Global<u32>) -> Option<u64> {
    match offset.load() {
        ABSENT => None,
        offset => Some(base + u64::from(offset)),
    }
}

/// Reads the field at `offset` of the kernel struct at `base`; `None` where the struct has no
/// such field or the address cannot be read.
#[inline(always)]
pub(super) fn read_field<T>(base: u64, offset: &Global<u32>) -> Option<T> {
    let address = field_address(base, offset)? as *const T;
    // SAFETY: probe_read checks the address; `T` is an integer or an array of bytes.
    unsafe { aya_ebpf::helpers::bpf_probe_read_kernel(address) }.ok()
}
