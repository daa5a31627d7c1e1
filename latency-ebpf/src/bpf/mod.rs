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

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // The verifier rejects programs that could get here.
    loop {}
}
