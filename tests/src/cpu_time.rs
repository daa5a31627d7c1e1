//! CPU time to the nanosecond; `getrusage` is brought up to date only by the timer's tick.

use std::time::Duration;

/// Of the calling thread, since it began.
pub fn of_this_thread() -> Duration {
    // SAFETY: all zero is a valid timespec, which the call overwrites; the clock is always there.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time);
        time
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
