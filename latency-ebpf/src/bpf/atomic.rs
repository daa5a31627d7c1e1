//! Atomic operations on map values.
//!
//! Rust's BPF target has no read-modify-write atomics, so they are written as BPF instructions. All
//! but plain additions need a kernel since 5.12. For older ones user space clears
//! [`FETCH_ATOMICS`] and replaces the instructions, in branches that are never taken then.

use core::arch::asm;

use super::config::FETCH_ATOMICS;

/// Adds `amount` and returns the previous value. On old kernels, contexts that are nested may both
/// get the same one.
#[inline(always)]
pub(crate) fn fetch_add(counter: &mut u64, amount: u64) -> u64 {
    if !has_fetch() {
        let before = *counter;
        add(counter, amount);
        return before;
    }
    let before;
    // SAFETY: `counter` is an aligned u64 in a map value.
    unsafe {
        asm!(
            "{value} = atomic_fetch_add((u64 *)({counter} + 0), {value})",
            value = inlateout(reg) amount => before,
            counter = in(reg) &raw mut *counter,
        );
    }
    before
}

/// Adds `amount`.
#[inline(always)]
pub(crate) fn add(counter: &mut u64, amount: u64) {
    // SAFETY: as in `fetch_add`.
    unsafe {
        asm!(
            "lock *(u64 *)({counter} + 0) += {amount}",
            counter = in(reg) &raw mut *counter,
            amount = in(reg) amount,
        );
    }
}

/// Adds 1; after `u32::MAX` comes 0.
#[inline(always)]
pub(crate) fn add_one(counter: &mut u32) {
    // SAFETY: `counter` is an aligned u32 in a map value.
    unsafe {
        asm!(
            "lock *(u32 *)({counter} + 0) += {one}",
            counter = in(reg) &raw mut *counter,
            one = in(reg) 1_u64,
        );
    }
}

/// Sets the bits of `mask`. On old kernels, sets all bits: a store that cannot lose another's.
#[inline(always)]
pub(crate) fn or(bits: &mut u64, mask: u64) {
    if !has_fetch() {
        *bits = u64::MAX;
        return;
    }
    // SAFETY: as in `fetch_add`.
    unsafe {
        asm!(
            "lock *(u64 *)({bits} + 0) |= {mask}",
            bits = in(reg) &raw mut *bits,
            mask = in(reg) mask,
        );
    }
}

/// Raises `maximum` to `value` if it is lower. On old kernels, a lower value that another context
/// writes at the same time may win; the reader then takes the lower end of the highest bucket.
#[inline(always)]
pub(crate) fn raise_to(maximum: &mut u64, value: u64) {
    if !has_fetch() {
        if value > *maximum {
            *maximum = value;
        }
        return;
    }
    let mut seen = *maximum;
    // An exchange fails if another context raised it in between. Two contexts can be nested on a
    // CPU, so they do not contend for a third try.
    for _ in 0..3 {
        if value <= seen {
            return;
        }
        let expected = seen;
        // SAFETY: as in `fetch_add`.
        unsafe {
            asm!(
                "r0 = cmpxchg_64({maximum} + 0, r0, {value})",
                inlateout("r0") expected => seen,
                maximum = in(reg) &raw mut *maximum,
                value = in(reg) value,
            );
        }
        if seen == expected {
            return;
        }
    }
}

/// Whether the kernel has more than plain additions; the verifier removes the other branch.
#[inline(always)]
pub(crate) fn has_fetch() -> bool {
    FETCH_ATOMICS.load() != 0
}
