//! Atomic operations of the kernel's eBPF: before Linux 5.12 there are only plain additions.
//!
//! The programs have a branch for either. But the verifier of old kernels looks at all instructions,
//! also at those that are never reached.

use std::io;

use anyhow::{Context, Result};
use object::{Object, ObjectSection, SectionKind};

use super::bare;

/// `*(u64 *)(r10 - 8) = 0; r0 = 0; r0 = atomic_fetch_add(r10 - 8, r0); r0 = 0; exit`.
const FETCH_ADD: [[u8; 8]; 5] = [
    [0x7a, 0x0a, 0xf8, 0xff, 0, 0, 0, 0],
    [0xb7, 0x00, 0x00, 0x00, 0, 0, 0, 0],
    [ATOMIC_64, 0x0a, 0xf8, 0xff, 1, 0, 0, 0],
    [0xb7, 0x00, 0x00, 0x00, 0, 0, 0, 0],
    [0x95, 0x00, 0x00, 0x00, 0, 0, 0, 0],
];

/// `BPF_STX | BPF_DW | BPF_ATOMIC`, once `BPF_XADD`; the immediate value tells the operation.
const ATOMIC_64: u8 = 0xdb;
/// The same for 32 bits.
const ATOMIC_32: u8 = 0xc3;
/// `BPF_LD | BPF_DW | BPF_IMM`: its second half is no instruction.
const LOAD_64: u8 = 0x18;

/// Whether the kernel has atomic operations that return a value. A kernel that cannot be asked, for
/// lack of privileges, is taken to have them.
pub fn has_fetch() -> bool {
    match bare::load("atomics", &FETCH_ADD) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

/// Makes plain additions of all other atomic operations in the programs of an ELF `object`.
pub(super) fn only_plain(object: &[u8]) -> Result<Vec<u8>> {
    let mut plain = object.to_vec();
    let file = object::File::parse(object).context("read the eBPF object")?;
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let (at, length) = section.file_range().context("programs without instructions")?;
        let code = plain.get_mut(at as usize..).and_then(|rest| rest.get_mut(..length as usize));
        let mut instructions = code.context("programs beyond the end")?.chunks_exact_mut(8);
        while let Some(instruction) = instructions.next() {
            match instruction[0] {
                LOAD_64 => drop(instructions.next()),
                ATOMIC_32 | ATOMIC_64 => instruction[4..].fill(0),
                _ => {}
            }
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::object::BYTES;

    /// The instructions of an object's programs that differ between two of its forms.
    fn changed(before: &[u8], after: &[u8]) -> Vec<[u8; 8]> {
        let of = |bytes: &[u8], at: usize| -> [u8; 8] { bytes[at..at + 8].try_into().unwrap() };
        let places = (0..before.len() / 8 * 8).step_by(8);
        places.filter(|at| of(before, *at) != of(after, *at)).map(|at| of(after, at)).collect()
    }

    #[test]
    fn only_plain_additions_remain() {
        let plain = only_plain(BYTES).unwrap();
        assert_eq!(plain.len(), BYTES.len());
        let changed = changed(BYTES, &plain);
        // Additions and exchanges, in the programs of polls and collapses at least.
        assert!(changed.len() > 10, "{changed:x?}");
        assert!(changed.iter().all(|code| code[0] == ATOMIC_64 && code[4..] == [0; 4]));
        assert_eq!(only_plain(&plain).unwrap(), plain);
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        assert!(only_plain(b"not ELF").is_err());
        assert!(only_plain(&BYTES[..BYTES.len() / 2]).is_err());
    }
}
