//! CPU time in nanoseconds; `getrusage` is updated only by the timer tick.

use std::time::Duration;

/// CPU time of the calling thread since it started.
pub fn of_this_thread() -> Duration {
    // SAFETY: all zero is a valid timespec, which the call overwrites; the clock always exists.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time);
        time
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
