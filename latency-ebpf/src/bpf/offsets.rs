//! Reads struct fields of the running kernel. The loader resolves their offsets from BTF and sets
//! them before the programs are loaded.

use aya_ebpf::{Global, helpers::generated::bpf_probe_read_kernel};

/// Marks a field that this kernel does not have.
const ABSENT: u32 = u32::MAX;

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $($(#[$doc])*
        #[unsafe(no_mangle)]
        pub(crate) static $name: Global<u32> = Global::new(ABSENT);)*
    };
}

offsets! {
    /// Offset of `napi_struct.napi_id`.
    NAPI_ID;
    /// Offset of `napi_struct.dev`.
    NAPI_DEV;
    /// Offset of `napi_struct.weight`.
    NAPI_WEIGHT;
    /// Offset of `net_device.ifindex`.
    DEV_IFINDEX;
    /// Offset of `net_device.name`.
    DEV_NAME;
    /// Offset of `net_device.nd_net`.
    DEV_NET;
    /// Offset of `net.ns.inum`.
    NET_INUM;
    /// Offset of `irq_desc.irq_data.irq`.
    DESC_IRQ;
    /// Offset of `sk_buff.napi_id`.
    SKB_NAPI_ID;
    /// Offset of `sk_buff.queue_mapping`.
    SKB_QUEUE_MAPPING;
    /// Offset of `sock.__sk_common.skc_family`.
    SK_FAMILY;
    /// Offset of `sock.__sk_common.skc_num`: the local port, host order.
    SK_NUM;
    /// Offset of `sock.__sk_common.skc_dport`: the remote port, network order.
    SK_DPORT;
    /// Offset of `sock.__sk_common.skc_rcv_saddr`.
    SK_RCV_SADDR;
    /// Offset of `sock.__sk_common.skc_daddr`.
    SK_DADDR;
    /// Offset of `sock.__sk_common.skc_v6_rcv_saddr`.
    SK_V6_RCV_SADDR;
    /// Offset of `sock.__sk_common.skc_v6_daddr`.
    SK_V6_DADDR;
    /// Offset of `sock.__sk_common.skc_net.net`.
    SK_NET;
    /// Offset of `sock.sk_socket`.
    SK_SOCKET;
    /// Offset of `socket_alloc.vfs_inode`, relative to its `socket`.
    SOCKET_INODE;
    /// Offset of `inode.i_ino`.
    INODE_NUMBER;
    /// Offset of `sock.sk_backlog.rmem_alloc`.
    SK_RMEM_ALLOC;
    /// Offset of `sock.sk_rcvbuf`.
    SK_RCVBUF;
    /// Offset of `sock.sk_receive_queue.qlen`.
    SK_QUEUE_LEN;
    /// Offset of `tcp_sock.rcv_ssthresh`.
    TCP_RCV_SSTHRESH;
    /// Offset of `tcp_sock.window_clamp`.
    TCP_WINDOW_CLAMP;
    /// Offset of `tcp_sock.rcv_nxt`.
    TCP_RCV_NXT;
    /// Offset of `tcp_sock.copied_seq`.
    TCP_COPIED_SEQ;
    /// Offset of `task_struct.nvcsw`.
    TASK_NVCSW;
    /// Offset of `task_struct.nivcsw`.
    TASK_NIVCSW;
}

/// Address of the field at `offset` of the kernel struct at `base`; `None`: no such field.
#[inline(always)]
pub(crate) fn field_address(base: u64, offset: &Global<u32>) -> Option<u64> {
    match offset.load() {
        ABSENT => None,
        offset => Some(base + u64::from(offset)),
    }
}

/// Reads the field at `offset` of the kernel struct at `base`; `None`: no such field, or the
/// address cannot be read.
#[inline(always)]
pub(crate) fn read_field<T>(base: u64, offset: &Global<u32>) -> Option<T> {
    let address = field_address(base, offset)? as *const T;
    // SAFETY: probe_read checks the address; `T` is an integer or an array of bytes.
    unsafe { aya_ebpf::helpers::bpf_probe_read_kernel(address) }.ok()
}

/// As [`read_field`], for an argument of the traced function, whose type the verifier knows: a load,
/// which costs less than the helper. If it faults, the result is 0.
///
/// # Safety
///
/// `base` comes from the context of an fentry or fexit program.
#[inline(always)]
pub(crate) unsafe fn load_field<T>(base: u64, offset: &Global<u32>) -> Option<T> {
    let address = field_address(base, offset)? as *const T;
    // SAFETY: the verifier admits only loads of fields of the argument's type.
    Some(unsafe { address.read_volatile() })
}

/// Reads the `N` bytes at `offset` of the kernel struct at `base`; zeros: no such field, or the
/// address cannot be read. Unlike [`read_field`], writes all of its stack: verifiers before 5.12
/// refuse copies of bytes that were never written.
#[inline(always)]
pub(crate) fn read_bytes<const N: usize>(base: u64, offset: &Global<u32>) -> [u8; N] {
    let mut bytes = [0; N];
    if let Some(address) = field_address(base, offset) {
        // SAFETY: the helper writes `N` bytes, zeros if the address cannot be read.
        unsafe { bpf_probe_read_kernel(bytes.as_mut_ptr().cast(), N as u32, address as *const _) };
    }
    bytes
}
