//! Spins on packets to the marked UDP destination port.

use core::ffi::c_void;

use aya_ebpf::{
    Global,
    bindings::{TC_ACT_OK, xdp_action::XDP_PASS},
    helpers::generated::{bpf_csum_diff, bpf_ktime_get_ns, bpf_loop},
    macros::{classifier, kprobe, map, raw_tracepoint, xdp},
    maps::{Array, PerCpuArray, ProgramArray},
    programs::{ProbeContext, RawTracePointContext, TcContext, XdpContext},
};

/// How long a marked packet is delayed, ns.
#[unsafe(no_mangle)]
static SPIN_NS: Global<u64> = Global::new(0);

/// UDP destination port of marked packets.
#[unsafe(no_mangle)]
static MARKED_PORT: Global<u32> = Global::new(0);

/// Whether packets are delayed with interrupts off.
#[unsafe(no_mangle)]
static MASKED: Global<u32> = Global::new(0);

/// Element 0: whether the next interrupt on this CPU is to be long.
#[map]
static ARMED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// How long each marked packet was delayed, ns, in order of arrival; stops when full.
#[map]
static DURATIONS: Array<u64> = Array::with_max_entries(1024, 0);

/// Element 0: number of marked packets delayed so far.
#[map]
static HELD: Array<u64> = Array::with_max_entries(1, 0);

/// Offset of the UDP destination port after Ethernet and an IPv4 header without options.
const UDP_DESTINATION: usize = 14 + 20 + 2;

/// Far more rounds than any spin needs: each reads the clock, which takes over 10 ns.
const MAX_ROUNDS: u32 = 1 << 23;

/// On the ingress of a veth device it runs inside NET_RX; on the egress, inside the sender with
/// softirqs disabled.
#[classifier]
pub(crate) fn stall_injector(ctx: TcContext) -> i32 {
    let _ = try_stall_injector(&ctx);
    TC_ACT_OK
}

fn try_stall_injector(ctx: &TcContext) -> Result<(), i64> {
    if !is_marked(ctx)? {
        return Ok(());
    }
    note(match MASKED.load() {
        0 => spin_for_a_while(),
        _ => wait_for_a_long_interrupt(),
    });
    Ok(())
}

/// Element 0: [`short_stall_injector`] itself.
#[map]
static AGAIN: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Element 0: since when the packet in [`short_stall_injector`] is delayed, ns; 0: none is.
#[map]
static SINCE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// As [`stall_injector`], for kernels before 5.17, which have no `bpf_loop`: not with interrupts
/// off. It calls itself until the time is up, at most the 32 times that such a kernel allows.
#[classifier]
pub(crate) fn short_stall_injector(ctx: TcContext) -> i32 {
    if is_marked(&ctx) == Ok(true)
        && let Some(since) = SINCE.get_ptr_mut(0)
    {
        // SAFETY: the pointer comes from a map lookup, of this CPU.
        let start = match unsafe { *since } {
            // SAFETY: the helper takes no argument.
            0 => unsafe { bpf_ktime_get_ns() },
            start => start,
        };
        // SAFETY: as above.
        unsafe { *since = start };
        if spin_for_rounds(start + SPIN_NS.load()) {
            // SAFETY: the map holds this program, of the same type.
            unsafe { AGAIN.tail_call(&ctx, 0) };
        }
        // SAFETY: as above.
        unsafe { *since = 0 };
        // SAFETY: as above.
        note(unsafe { bpf_ktime_get_ns() } - start);
    }
    TC_ACT_OK
}

/// Passes every packet: its presence makes a veth device of kernels before 5.13 use NAPI.
#[xdp]
pub(crate) fn let_pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

#[inline(always)]
fn is_marked(ctx: &TcContext) -> Result<bool, i64> {
    let port = u16::from_be(ctx.load::<u16>(UDP_DESTINATION)?);
    Ok(u32::from(port) == MARKED_PORT.load())
}

/// Notes how long a packet was delayed, ns.
#[inline(always)]
fn note(spun_ns: u64) {
    if let Some(held) = HELD.get_ptr_mut(0) {
        // SAFETY: as below.
        if let Some(duration) = DURATIONS.get_ptr_mut(unsafe { *held } as u32) {
            // SAFETY: as below.
            unsafe { *duration = spun_ns };
        }
        // SAFETY: the pointer comes from a map lookup; the tests mark one flow, which stays on
        // one CPU.
        unsafe { *held += 1 };
    }
}

/// Makes the next interrupt long and waits for its end. Returns the time it took, ns.
fn wait_for_a_long_interrupt() -> u64 {
    let Some(armed) = ARMED.get_ptr_mut(0) else { return 0 };
    // SAFETY: the helper takes no argument.
    let start = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the pointer comes from a map lookup, of this CPU; the callback has the signature that
    // the helper expects and looks the value up itself.
    unsafe {
        *armed = 1;
        bpf_loop(MAX_ROUNDS, wait as *mut c_void, core::ptr::null_mut(), 0);
        bpf_ktime_get_ns() - start
    }
}

/// One round: ends the loop after the interrupt.
extern "C" fn wait(_round: u64, _context: *mut c_void) -> i64 {
    // SAFETY: the pointer comes from a map lookup, of this CPU, whose interrupt writes it.
    ARMED.get_ptr(0).map_or(1, |armed| i64::from(unsafe { armed.read_volatile() } == 0))
}

/// Runs in an interrupt.
#[raw_tracepoint]
pub(crate) fn masked_spin(_ctx: RawTracePointContext) -> i32 {
    let Some(armed) = ARMED.get_ptr_mut(0) else { return 0 };
    // SAFETY: the pointer comes from a map lookup, of this CPU.
    if unsafe { core::mem::replace(&mut *armed, 0) } != 0 {
        spin_for_a_while();
    }
    0
}

/// Occupies the CPU at the entry of a function, as another tracer's slow probe would. Meanwhile the
/// kernel runs no other kprobe on this CPU.
#[kprobe]
pub(crate) fn hog(_ctx: ProbeContext) -> u32 {
    spin_for_a_while();
    0
}

/// Spins for [`SPIN_NS`] and returns the time it took, ns.
#[inline(always)]
fn spin_for_a_while() -> u64 {
    // SAFETY: the helper takes no argument.
    let start = unsafe { bpf_ktime_get_ns() };
    let mut until = start + SPIN_NS.load();
    // SAFETY: the callback has the signature that the helper expects and uses `until` only while
    // the helper runs.
    unsafe { bpf_loop(MAX_ROUNDS, spin as *mut c_void, (&raw mut until).cast(), 0) };
    // SAFETY: as above.
    unsafe { bpf_ktime_get_ns() - start }
}

/// Rounds that a verifier follows one by one, up to a million instructions.
const FEW_ROUNDS: u32 = 60_000;

/// Spins for [`FEW_ROUNDS`], or `until` a time, ns. Whether that is still to come.
#[inline(always)]
fn spin_for_rounds(until: u64) -> bool {
    let mut bytes = [0_u32; 64];
    for _ in 0..FEW_ROUNDS {
        // So that a round takes long enough.
        let size = size_of_val(&bytes) as u32;
        // SAFETY: the bytes are valid for the time of the call; the other helper takes no argument.
        unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, bytes.as_mut_ptr(), size, 0) };
        // SAFETY: as above.
        if unsafe { bpf_ktime_get_ns() } >= until {
            return false;
        }
    }
    true
}

/// One round: ends the loop when the time is up.
extern "C" fn spin(_round: u64, until: *mut u64) -> i64 {
    // SAFETY: `until` points to the caller's variable; the helper takes no argument.
    i64::from(unsafe { bpf_ktime_get_ns() >= *until })
}

/// Allows calls to GPL-only helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
