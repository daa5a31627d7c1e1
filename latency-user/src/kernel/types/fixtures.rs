//! Type information for tests: a kernel with a few structs, functions and tracepoints.

use super::btf::Btf;

const INT: u32 = 1;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const TYPEDEF: u32 = 8;
const FUNC: u32 = 12;

/// Set in `info` when the upper byte of a member's offset is the width of a bit-field.
const KIND_FLAG: u32 = 1 << 31;

#[derive(Default)]
struct BtfBuilder {
    types: Vec<u32>,
    strings: Vec<u8>,
    count: u32,
}

impl BtfBuilder {
    fn name(&mut self, name: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        at
    }

    /// Adds a type and returns its number.
    fn add(&mut self, info: u32, name: &str, size_or_type: u32, trailer: &[u32]) -> u32 {
        let name = self.name(name);
        self.types.extend([name, info, size_or_type]);
        self.types.extend(trailer);
        self.count += 1;
        self.count
    }

    /// Adds a struct or union of `(name, type, offset in bits)`.
    fn add_members(&mut self, info: u32, name: &str, members: &[(&str, u32, u32)]) -> u32 {
        let mut words = Vec::new();
        for (name, kind, bits) in members {
            words.extend([self.name(name), *kind, *bits]);
        }
        // No member is longer than 16 bytes.
        let last = members.iter().map(|(.., bits)| (bits & 0xff_ffff) / 8).max().unwrap_or(0);
        self.add(info | members.len() as u32, name, last + 16, &words)
    }

    fn bytes(self) -> Vec<u8> {
        let types: Vec<u8> = self.types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let header = [24, 0, types.len() as u32, types.len() as u32, self.strings.len() as u32];
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend(header.into_iter().flat_map(u32::to_ne_bytes));
        bytes.extend(types);
        bytes.extend(self.strings);
        bytes
    }
}

/// The complete type information.
///
/// | struct | members, with their bytes |
/// |---|---|
/// | `list_head` | `next` 0, `prev` 8 |
/// | `irq_desc` | `depth` 0, `irq_data` 16 (a typedef of a struct with `mask` 0, `irq` 4) |
/// | `sock` | an anonymous union at 8 with `skc_hash` 0; `flag`, a bit-field |
pub(super) fn bytes() -> Vec<u8> {
    let mut builder = BtfBuilder::default();
    let int = builder.add(INT << 24, "int", 4, &[32]);
    builder.add_members(STRUCT << 24, "list_head", &[("next", int, 0), ("prev", int, 64)]);
    let data = builder.add_members(STRUCT << 24, "irq_data", &[("mask", int, 0), ("irq", int, 32)]);
    let data = builder.add(TYPEDEF << 24, "irq_data_t", data, &[]);
    builder.add_members(STRUCT << 24, "irq_desc", &[("depth", int, 0), ("irq_data", data, 128)]);
    let union = builder.add_members(UNION << 24, "", &[("skc_hash", int, 0)]);
    let members = [("", union, 64), ("flag", int, (3 << 24) | 128)];
    builder.add_members(STRUCT << 24 | KIND_FLAG, "sock", &members);
    for function in ["net_rx_action", "__napi_poll", "tcp_collapse"] {
        builder.add(FUNC << 24, function, 0, &[]);
    }
    for tracepoint in ["softirq_raise", "softirq_entry", "softirq_exit", "napi_poll"] {
        builder.add(TYPEDEF << 24, &format!("btf_trace_{tracepoint}"), int, &[]);
    }
    builder.bytes()
}

/// The same, parsed.
pub(in crate::kernel) fn btf() -> Btf {
    Btf::parse(bytes()).unwrap()
}
