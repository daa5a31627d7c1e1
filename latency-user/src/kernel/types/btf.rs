//! Reads struct offsets and names from the kernel's type information (BTF).
//!
//! <https://docs.kernel.org/bpf/btf.html>

use std::path::Path;

use anyhow::{Context, Result, bail};

/// Type information of the running kernel.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const HEADER_LENGTH: usize = 24;

const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Maximum nesting of anonymous members and qualifiers; the kernel's is much lower.
const MAX_DEPTH: u32 = 16;

/// The types of a kernel.
pub struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Offset of each type's record; index 0 is `void`. Names are searched linearly: building a
    /// table of them takes longer than the few lookups of a run.
    types: Vec<u32>,
}

impl Btf {
    /// Reads the type information at `path` (usually [`VMLINUX`]).
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is not BTF in native byte order.
    pub fn read(path: &Path) -> Result<Self> {
        let data = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(data).with_context(|| format!("parse {}", path.display()))
    }

    /// Parses type information.
    ///
    /// # Errors
    ///
    /// When `data` is truncated, or has an unknown type kind.
    pub fn parse(data: Vec<u8>) -> Result<Self> {
        let magic = data.get(..2).map(|b| u16::from_ne_bytes([b[0], b[1]]));
        if magic != Some(MAGIC) {
            bail!("not BTF: magic {magic:x?}, expected {MAGIC:x}");
        }
        let mut btf = Self { data, strings: 0, types: vec![0] };
        let header = btf.word(4)? as usize;
        if header < HEADER_LENGTH {
            bail!("header of {header} bytes, expected at least {HEADER_LENGTH}");
        }
        let types = header + btf.word(8)? as usize;
        let end = types + btf.word(12)? as usize;
        btf.strings = header + btf.word(16)? as usize;
        btf.index(types, end)?;
        Ok(btf)
    }

    /// Records the offset of each type.
    fn index(&mut self, mut at: usize, end: usize) -> Result<()> {
        while at < end {
            let id = self.types.len() as u32;
            let info = self.word(at + 4)?;
            let (kind, members) = (kind(info), (info & 0xffff) as usize);
            let extra = match kind {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => members * 12,
                KIND_ENUM | KIND_FUNC_PROTO => members * 8,
                2 | 7..=12 | 16 | KIND_TYPE_TAG => 0,
                other => bail!("type {id}: unknown kind {other}"),
            };
            self.types.push(u32::try_from(at).context("more than 4 GiB")?);
            at += 12 + extra;
        }
        Ok(())
    }

    /// Whether BTF describes a function with this name.
    pub fn has_function(&self, name: &str) -> bool {
        self.function(name).is_some()
    }

    /// The id of the function with this name.
    pub fn function(&self, name: &str) -> Option<u32> {
        self.find(KIND_FUNC, name)
    }

    /// Whether the kernel has this tracepoint.
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.find(KIND_TYPEDEF, &format!("btf_trace_{name}")).is_some()
    }

    /// Offset in bytes of a field, given as the struct's name and a path of members such as
    /// `irq_data.irq`. Anonymous members are searched. `None`: there is no such field.
    pub fn offset(&self, structure: &str, path: &str) -> Option<u32> {
        let mut id = self.find(KIND_STRUCT, structure)?;
        let mut offset = 0;
        for name in path.split('.') {
            let (member_offset, member) = self.member(id, name, 0)?;
            offset = member_offset.checked_add(offset)?;
            id = member;
        }
        Some(offset)
    }

    /// The first type with this kind and name.
    fn find(&self, wanted: u32, name: &str) -> Option<u32> {
        let matches = |at: usize| {
            let (name_at, info) = (self.word(at).ok()?, self.word(at + 4).ok()?);
            let start = self.strings + name_at as usize;
            let found = kind(info) == wanted
                && self.data.get(start..start + name.len()) == Some(name.as_bytes())
                && self.data.get(start + name.len()) == Some(&0);
            found.then_some(())
        };
        let types = self.types.iter().enumerate().skip(1);
        types.into_iter().find(|(_, at)| matches(**at as usize).is_some()).map(|(id, _)| id as u32)
    }

    /// Offset and type of the member `name` of struct or union `id`.
    fn member(&self, id: u32, name: &str, depth: u32) -> Option<(u32, u32)> {
        let at = *self.types.get(self.strip(id)? as usize)? as usize;
        let (info, size) = (self.word(at + 4).ok()?, self.word(at + 8).ok()?);
        if !matches!(kind(info), KIND_STRUCT | KIND_UNION) || depth > MAX_DEPTH {
            return None;
        }
        for index in 0..(info & 0xffff) as usize {
            let member = at + 12 + index * 12;
            let (member_name, member_type) = (self.word(member).ok()?, self.word(member + 4).ok()?);
            let position = self.word(member + 8).ok()?;
            // If the kind flag is set, the upper byte is the width of a bit-field.
            let bits = if info >> 31 == 1 { position & 0xff_ffff } else { position };
            // Damaged: nothing lies outside of its struct.
            if bits / 8 >= size {
                continue;
            }
            if member_name == 0 {
                if let Some((inner, found)) = self.member(member_type, name, depth + 1) {
                    return Some(((bits / 8).checked_add(inner)?, found));
                }
            } else if string(&self.data, self.strings + member_name as usize).ok()? == name {
                let bit_field = info >> 31 == 1 && position >> 24 != 0;
                return (!bit_field && bits % 8 == 0).then_some((bits / 8, member_type));
            }
        }
        None
    }

    /// Follows typedefs and qualifiers.
    fn strip(&self, mut id: u32) -> Option<u32> {
        for _ in 0..MAX_DEPTH {
            let at = *self.types.get(id as usize)? as usize;
            match kind(self.word(at + 4).ok()?) {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = self.word(at + 8).ok()?;
                }
                _ => return Some(id),
            }
        }
        None
    }

    fn word(&self, at: usize) -> Result<u32> {
        let bytes = self.data.get(at..).and_then(|rest| rest.first_chunk());
        Ok(u32::from_ne_bytes(*bytes.with_context(|| format!("cut at byte {at}"))?))
    }
}

fn kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

fn string(data: &[u8], at: usize) -> Result<&str> {
    let rest = data.get(at..).with_context(|| format!("string at byte {at} lies outside"))?;
    let length = rest.iter().position(|b| *b == 0).context("string without an end")?;
    std::str::from_utf8(&rest[..length]).context("string is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures, *};

    #[test]
    fn fields_are_found_through_typedefs_and_anonymous_members() {
        let btf = fixtures::btf();
        assert_eq!(btf.offset("list_head", "prev"), Some(8));
        assert_eq!(btf.offset("list_head", "nothing"), None);
        assert_eq!(btf.offset("no_such_struct", "x"), None);
        assert_eq!(btf.offset("irq_desc", "irq_data.irq"), Some(20));
        assert_eq!(btf.offset("irq_desc", "depth.irq"), None);
        assert_eq!(btf.offset("sock", "skc_hash"), Some(8));
        // A bit-field has no offset in bytes.
        assert_eq!(btf.offset("sock", "flag"), None);
    }

    #[test]
    fn hooks_are_found_by_their_complete_name() {
        let btf = fixtures::btf();
        assert!(btf.has_tracepoint("softirq_entry") && !btf.has_tracepoint("softirq"));
        assert!(btf.has_function("tcp_collapse") && !btf.has_function("softirq_entry"));
        assert!(!btf.has_function("tcp_collapse_ofo_queue"));
    }

    #[test]
    fn truncated_input_is_an_error_not_a_panic() {
        let data = fixtures::bytes();
        for length in 0..data.len() {
            if let Ok(btf) = Btf::parse(data[..length].to_vec()) {
                let _ = (btf.offset("sock", "skc_hash"), btf.has_tracepoint("napi_poll"));
            }
        }
        assert!(Btf::parse(data[..40].to_vec()).is_err());
        assert!(Btf::parse(vec![0; 64]).is_err());
    }

    #[test]
    fn an_unknown_kind_is_an_error() {
        let mut data = fixtures::bytes();
        // The `info` field of the first type, after the header and the type's name.
        data[HEADER_LENGTH + 4..HEADER_LENGTH + 8].copy_from_slice(&(30_u32 << 24).to_ne_bytes());
        let error = Btf::parse(data).err().unwrap();
        assert!(error.to_string().contains("type 1: unknown kind 30"), "{error}");
    }
}
