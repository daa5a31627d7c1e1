//! Shared by the probes: `histogram` writes rows, `slots` finds them, `stalls` sends stall records,
//! `config` and `offsets` hold what the loader sets.

pub(crate) mod atomic;
pub(crate) mod clock;
pub(crate) mod config;
pub(crate) mod cpu;
pub(crate) mod histogram;
pub(crate) mod interference;
pub(crate) mod maps;
pub(crate) mod offsets;
pub(crate) mod slots;
pub(crate) mod sockets;
pub(crate) mod span;
pub(crate) mod stalls;

/// Lets the programs call GPL-only helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The machine whose registers the kprobes read, as Rust names it; the loader compares it. Set by
/// the build.
#[used]
#[unsafe(link_section = "architecture")]
#[unsafe(no_mangle)]
static ARCHITECTURE: [u8; MACHINE.len()] = *MACHINE;
const MACHINE: &[u8; env!("AYA_BPF_TARGET_ARCH").len()] = {
    match env!("AYA_BPF_TARGET_ARCH").as_bytes().first_chunk() {
        Some(name) => name,
        None => panic!("the array has the length of the name"),
    }
};

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // The verifier rejects programs that could get here.
    loop {}
}
