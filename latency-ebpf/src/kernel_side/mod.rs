//! Everything that runs in the kernel: probes stamp, `record` writes rows, `slots` finds them,
//! `stalls` sends what is known of the long ones.

mod atomic;
mod clock;
mod config;
mod cpu;
mod holders;
mod maps;
mod probes;
mod record;
mod slots;
mod sockets;
mod stalls;

/// Lets the kernel call helpers that are reserved for GPL programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // The verifier admits no program that could get here.
    loop {}
}
