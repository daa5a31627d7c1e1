//! What kind of program a file is, by its ELF header (see elf(5)).

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::architecture::Architecture;

/// Machines of the header's field `e_machine`.
const X86_64: u16 = 62;
const AARCH64: u16 = 183;
/// Types of program headers: names a dynamic loader.
const PT_INTERP: u32 = 3;

/// Checks that a program is for `architecture` and needs no library of its host. Returns its size.
pub(super) fn check(path: &Path, architecture: Architecture) -> Result<u64> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let header = read(&bytes).with_context(|| format!("{} is no program", path.display()))?;
    let wanted = match architecture {
        Architecture::Amd64 => X86_64,
        Architecture::Arm64 => AARCH64,
    };
    if header.machine != wanted {
        bail!("{} is for machine {}, not {}", path.display(), header.machine, architecture.rust());
    }
    if header.has_loader {
        bail!("{} is not static: it names a dynamic loader", path.display());
    }
    Ok(bytes.len() as u64)
}

struct Header {
    machine: u16,
    has_loader: bool,
}

/// Reads the header of a little-endian 64-bit program.
fn read(bytes: &[u8]) -> Option<Header> {
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let half = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let machine = half(18)?;
    let start = u64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?);
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    let mut has_loader = false;
    for number in 0..count {
        let at = usize::try_from(start).ok()?.checked_add(number * size)?;
        let kind = bytes.get(at..at.checked_add(4)?)?;
        has_loader |= u32::from_le_bytes(kind.try_into().ok()?) == PT_INTERP;
    }
    Some(Header { machine, has_loader })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_loader_is_told_from_a_static_one() {
        let shell = fs::read("/bin/sh").unwrap();
        assert!(read(&shell).unwrap().has_loader);
        let busybox = fs::read("/bin/busybox").unwrap();
        assert!(!read(&busybox).unwrap().has_loader);
        assert!(read(b"#!/bin/sh").is_none());
        for length in 0..64 {
            assert!(read(&shell[..length]).is_none(), "{length}");
        }
    }
}
