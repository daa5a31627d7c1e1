//! The kernel's types as `bpftool btf dump` prints them.

use std::collections::HashMap;

/// Types by ID.
pub(crate) struct Types<'a>(HashMap<u32, Type<'a>>);

#[derive(Default)]
struct Type<'a> {
    kind: &'a str,
    name: &'a str,
    /// ID of the type that a typedef or qualifier refers to.
    target: u32,
    members: Vec<Member<'a>>,
}

struct Member<'a> {
    name: &'a str,
    kind: u32,
    bits: u32,
}

impl<'a> Types<'a> {
    /// Parses lines such as `[7] STRUCT 'list_head' size=16 vlen=2`, followed by indented lines
    /// such as `'next' type_id=8 bits_offset=0`.
    pub(crate) fn parse(dump: &'a str) -> Self {
        let mut types = HashMap::new();
        let mut current = 0;
        for line in dump.lines() {
            if let Some((number, rest)) = line.strip_prefix('[').and_then(|l| l.split_once("] ")) {
                current = number.parse().unwrap_or(0);
                let mut words = rest.split(' ');
                let kind = words.next().unwrap_or_default();
                let name = words.next().unwrap_or_default().trim_matches('\'');
                let target = value(rest, "type_id=").unwrap_or(0);
                types.insert(current, Type { kind, name, target, members: Vec::new() });
            } else if let (Some(kind), Some(bits)) =
                (value(line, "type_id="), value(line, "bits_offset="))
                && let Some(parent) = types.get_mut(&current)
            {
                let name = line.trim().split(' ').next().unwrap_or_default().trim_matches('\'');
                parent.members.push(Member { name, kind, bits });
            }
        }
        Self(types)
    }

    /// Offset in bytes of a member, given by its path in a struct.
    pub(crate) fn offset(&self, structure: &str, path: &str) -> Option<u32> {
        let is_it = |found: &&Type| found.kind == "STRUCT" && found.name == structure;
        let mut current = self.0.values().find(is_it)?;
        let mut bits = 0;
        for name in path.split('.') {
            let (offset, kind) = self.member(current, name)?;
            bits += offset;
            current = self.resolve(kind)?;
        }
        Some(bits / 8)
    }

    fn member(&self, parent: &Type, name: &str) -> Option<(u32, u32)> {
        parent.members.iter().find_map(|member| match member.name {
            own if own == name => Some((member.bits, member.kind)),
            "(anon)" => {
                let (bits, kind) = self.member(self.resolve(member.kind)?, name)?;
                Some((member.bits + bits, kind))
            }
            _ => None,
        })
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, mut kind: u32) -> Option<&Type<'a>> {
        loop {
            let found = self.0.get(&kind)?;
            match found.kind {
                "TYPEDEF" | "CONST" | "VOLATILE" | "RESTRICT" | "TYPE_TAG" => kind = found.target,
                _ => return Some(found),
            }
        }
    }
}

fn value(line: &str, key: &str) -> Option<u32> {
    let (_, rest) = line.split_once(key)?;
    rest.split(' ').next()?.parse().ok()
}
