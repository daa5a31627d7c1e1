//! The struct fields that the programs read, and where this kernel has them.

use super::btf::Btf;

/// Tells the programs that this kernel's struct has no such field.
pub const ABSENT: u32 = u32::MAX;

/// A field: the name of the programs' global for its offset, the struct, the path of members.
pub struct Field {
    /// Name of the global in the eBPF object.
    pub global: &'static str,
    /// Name of the struct.
    pub structure: &'static str,
    /// Members, joined by dots.
    pub path: &'static str,
}

const fn field(global: &'static str, structure: &'static str, path: &'static str) -> Field {
    Field { global, structure, path }
}

/// Every field that the programs read.
pub const FIELDS: [Field; 9] = [
    field("NAPI_ID", "napi_struct", "napi_id"),
    field("NAPI_DEV", "napi_struct", "dev"),
    field("DEV_IFINDEX", "net_device", "ifindex"),
    field("DEV_NAME", "net_device", "name"),
    field("DEV_NET", "net_device", "nd_net.net"),
    field("NET_INUM", "net", "ns.inum"),
    field("DESC_IRQ", "irq_desc", "irq_data.irq"),
    field("SKB_NAPI_ID", "sk_buff", "napi_id"),
    field("SKB_QUEUE_MAPPING", "sk_buff", "queue_mapping"),
];

/// Offset of each of [`FIELDS`], in their order; [`ABSENT`] where there is none.
pub fn resolve(btf: &Btf) -> Vec<(&'static str, u32)> {
    FIELDS
        .iter()
        .map(|field| {
            let offset = btf.offset(field.structure, field.path).unwrap_or(ABSENT);
            (field.global, offset)
        })
        .collect()
}
