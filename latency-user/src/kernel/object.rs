//! The eBPF object that is compiled in.

use std::env::consts::ARCH;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/latency-ebpf"));

/// The section in which an object names the machine it was built for.
const ARCHITECTURE: &str = "architecture";

/// The object.
///
/// # Errors
///
/// When it was built for another machine: its kprobes would read the wrong registers, and nothing
/// else would show it.
pub(super) fn bytes() -> Result<&'static [u8]> {
    check(OBJECT, ARCH)?;
    Ok(OBJECT)
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
    use super::*;

    #[test]
    fn an_object_of_another_machine_is_refused() {
        assert!(check(OBJECT, ARCH).is_ok());
        let other = if ARCH == "x86_64" { "aarch64" } else { "x86_64" };
        let error = check(OBJECT, other).unwrap_err().to_string();
        assert!(error.contains("was built for") && error.contains(ARCH), "{error}");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(check(b"not ELF", ARCH).is_err());
        assert!(check(&OBJECT[..OBJECT.len() / 2], ARCH).is_err());
    }
}
