//! A clock of perf on one CPU that runs a program at each tick, and can be stopped and started.
//!
//! aya's links start a clock when they are made, and keep its descriptor to themselves.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use aya_obj::generated::{
    PERF_EVENT_IOC_DISABLE, PERF_EVENT_IOC_ENABLE, PERF_EVENT_IOC_SET_BPF, PERF_FLAG_FD_CLOEXEC,
    perf_event_attr,
};

use crate::model::run::SampleClock;

/// `PERF_TYPE_HARDWARE` with `PERF_COUNT_HW_CPU_CYCLES`, and `PERF_TYPE_SOFTWARE` with
/// `PERF_COUNT_SW_CPU_CLOCK`, of `linux/perf_event.h`.
const CYCLES: (u32, u64) = (0, 0);
const TIME: (u32, u64) = (1, 0);

/// A clock. It stops when this is dropped.
pub(super) struct PerfClock(OwnedFd);

impl PerfClock {
    /// A clock on `cpu` that ticks `hz` times a second once it is started, and then runs `program`.
    pub(super) fn open(
        clock: SampleClock,
        hz: u64,
        cpu: u32,
        program: impl AsFd,
    ) -> io::Result<Self> {
        let (kind, config) = match clock {
            SampleClock::Time => TIME,
            SampleClock::Cycles => CYCLES,
        };
        // SAFETY: integers, of which all may be zero.
        let mut attributes: perf_event_attr = unsafe { mem::zeroed() };
        attributes.type_ = kind;
        attributes.size = size_of::<perf_event_attr>() as u32;
        attributes.config = config;
        attributes.__bindgen_anon_1.sample_freq = hz;
        attributes.set_freq(1);
        attributes.set_disabled(1);
        let (all_processes, no_group) = (-1, -1);
        // SAFETY: the attributes are valid for the time of the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                all_processes,
                cpu as libc::c_int,
                no_group,
                PERF_FLAG_FD_CLOEXEC as libc::c_ulong,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor, which nothing else owns.
        let clock = Self(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) });
        clock.control(PERF_EVENT_IOC_SET_BPF, program.as_fd().as_raw_fd())?;
        Ok(clock)
    }

    /// Starts it.
    pub(super) fn start(&self) -> io::Result<()> {
        self.control(PERF_EVENT_IOC_ENABLE, 0)
    }

    /// Stops it: when this returns, its last tick has ended.
    pub(super) fn stop(&self) -> io::Result<()> {
        self.control(PERF_EVENT_IOC_DISABLE, 0)
    }

    fn control(&self, request: u32, argument: libc::c_int) -> io::Result<()> {
        // SAFETY: the descriptor is a perf event's, whose requests take integers.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::Ioctl::from(request), argument) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
