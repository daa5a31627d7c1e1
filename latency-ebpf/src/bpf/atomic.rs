//! Atomic operations on map values.
//!
//! Rust's BPF target has no read-modify-write atomics, so they are written as BPF instructions,
//! which the kernel supports since 5.12.

use core::arch::asm;

/// Adds `amount` and returns the previous value.
#[inline(always)]
pub(crate) fn fetch_add(counter: &mut u64, amount: u64) -> u64 {
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

/// Sets the bits of `mask`.
#[inline(always)]
pub(crate) fn or(bits: &mut u64, mask: u64) {
    // SAFETY: as in `fetch_add`.
    unsafe {
        asm!(
            "lock *(u64 *)({bits} + 0) |= {mask}",
            bits = in(reg) &raw mut *bits,
            mask = in(reg) mask,
        );
    }
}

/// Raises `maximum` to `value` if it is lower.
#[inline(always)]
pub(crate) fn raise_to(maximum: &mut u64, value: u64) {
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
