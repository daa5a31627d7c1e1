//! Resources used by this process.

use std::{mem::MaybeUninit, time::Duration};

/// Resources used since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user space and in the kernel.
    pub cpu: Duration,
    /// Largest resident memory, bytes.
    pub resident_bytes: u64,
}

/// Asks the kernel (`getrusage`).
pub fn of_this_process() -> Usage {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: `usage` is large enough for the struct; the call fails only for an unknown first
    // argument.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
            return Usage::default();
        }
        usage.assume_init()
    };
    let time = |t: libc::timeval| {
        Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64)
    };
    Usage {
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        resident_bytes: usage.ru_maxrss as u64 * 1024,
    }
}
