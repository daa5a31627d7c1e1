//! The eBPF object that is compiled in.

use std::{borrow::Cow, env::consts::ARCH};

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection};

use super::atomics;

pub(super) static BYTES: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/latency-ebpf"));

/// The section in which an object names the machine it was built for.
const ARCHITECTURE: &str = "architecture";

/// The object, for a kernel that `has_fetch` atomics or not.
///
/// # Errors
///
/// When it was built for another machine: its kprobes would read the wrong registers, and nothing
/// else would show it.
pub(super) fn bytes(has_fetch: bool) -> Result<Cow<'static, [u8]>> {
    check(BYTES, ARCH)?;
    Ok(match has_fetch {
        true => BYTES.into(),
        false => atomics::only_plain(BYTES)?.into(),
    })
}

fn check(object: &[u8], machine: &str) -> Result<()> {
    let file = object::File::parse(object).context("read the eBPF object")?;
    let section = file.section_by_name(ARCHITECTURE);
    let section = section.context("the eBPF object does not name its machine: build it anew")?;
    let name = section.data().context("read the machine of the eBPF object")?;
    let name = String::from_utf8_lossy(name);
    if name != machine {
        bail!(
            "the eBPF object was built for {name:?}, and this program runs on {machine}: its \
             kprobes would read the wrong registers; build it with `cargo xtask build --target \
             {machine}-unknown-linux-gnu`"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use object::{ObjectSymbol, RelocationTarget};

    use super::*;

    #[test]
    fn an_object_of_another_machine_is_refused() {
        assert!(check(BYTES, ARCH).is_ok());
        let other = if ARCH == "x86_64" { "aarch64" } else { "x86_64" };
        let error = check(BYTES, other).unwrap_err().to_string();
        assert!(error.contains("was built for") && error.contains(ARCH), "{error}");
    }

    #[test]
    fn no_program_copies_byte_by_byte() {
        let file = object::File::parse(BYTES).unwrap();
        let relocations = file.sections().flat_map(|section| section.relocations());
        let called: Vec<&str> = relocations
            .filter_map(|(_, relocation)| match relocation.target() {
                RelocationTarget::Symbol(index) => {
                    file.symbol_by_index(index).and_then(|symbol| symbol.name()).ok()
                }
                _ => None,
            })
            .collect();
        assert!(called.contains(&"ROWS"), "{called:?}");
        assert!(!called.iter().any(|name| ["memcpy", "memmove", "memset"].contains(name)));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(check(b"not ELF", ARCH).is_err());
        assert!(check(&BYTES[..BYTES.len() / 2], ARCH).is_err());
    }
}
