//! The struct fields that the programs read, and their offsets in this kernel.

use super::btf::Btf;

/// Offset that means: this kernel's struct has no such field.
pub const ABSENT: u32 = u32::MAX;

/// A struct field whose offset the programs need.
pub struct Field {
    /// Name of the global for the offset in the eBPF object.
    pub global: &'static str,
    /// Name of the struct.
    pub structure: &'static str,
    /// Path of members, joined by dots.
    pub path: &'static str,
}

const fn field(global: &'static str, structure: &'static str, path: &'static str) -> Field {
    Field { global, structure, path }
}

/// Every field that the programs read.
pub const FIELDS: [Field; 30] = [
    field("NAPI_ID", "napi_struct", "napi_id"),
    field("NAPI_DEV", "napi_struct", "dev"),
    field("NAPI_WEIGHT", "napi_struct", "weight"),
    field("DEV_IFINDEX", "net_device", "ifindex"),
    field("DEV_NAME", "net_device", "name"),
    field("DEV_NET", "net_device", "nd_net.net"),
    field("NET_INUM", "net", "ns.inum"),
    field("DESC_IRQ", "irq_desc", "irq_data.irq"),
    field("SKB_NAPI_ID", "sk_buff", "napi_id"),
    field("SKB_QUEUE_MAPPING", "sk_buff", "queue_mapping"),
    field("SK_FAMILY", "sock", "__sk_common.skc_family"),
    field("SK_NUM", "sock", "__sk_common.skc_num"),
    field("SK_DPORT", "sock", "__sk_common.skc_dport"),
    field("SK_RCV_SADDR", "sock", "__sk_common.skc_rcv_saddr"),
    field("SK_DADDR", "sock", "__sk_common.skc_daddr"),
    field("SK_V6_RCV_SADDR", "sock", "__sk_common.skc_v6_rcv_saddr"),
    field("SK_V6_DADDR", "sock", "__sk_common.skc_v6_daddr"),
    field("SK_NET", "sock", "__sk_common.skc_net.net"),
    field("SK_SOCKET", "sock", "sk_socket"),
    field("SOCKET_INODE", "socket_alloc", "vfs_inode"),
    field("INODE_NUMBER", "inode", "i_ino"),
    field("SK_RMEM_ALLOC", "sock", "sk_backlog.rmem_alloc"),
    field("SK_RCVBUF", "sock", "sk_rcvbuf"),
    field("SK_QUEUE_LEN", "sock", "sk_receive_queue.qlen"),
    field("TCP_RCV_SSTHRESH", "tcp_sock", "rcv_ssthresh"),
    field("TCP_WINDOW_CLAMP", "tcp_sock", "window_clamp"),
    field("TCP_RCV_NXT", "tcp_sock", "rcv_nxt"),
    field("TCP_COPIED_SEQ", "tcp_sock", "copied_seq"),
    field("TASK_NVCSW", "task_struct", "nvcsw"),
    field("TASK_NIVCSW", "task_struct", "nivcsw"),
];

/// Offset of each of [`FIELDS`], in that order; [`ABSENT`] if there is no such field.
pub fn resolve(btf: &Btf) -> Vec<(&'static str, u32)> {
    FIELDS
        .iter()
        .map(|field| {
            let offset = btf.offset(field.structure, field.path).unwrap_or(ABSENT);
            (field.global, offset)
        })
        .collect()
}
