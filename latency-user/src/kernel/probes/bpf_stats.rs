//! The kernel's statistics of eBPF programs: number of runs and run time.

use std::os::fd::OwnedFd;

use aya::sys::{Stats, enable_stats};

use crate::model::note::Note;

/// Keeps the statistics enabled until dropped; the kernel also disables them when the process ends.
/// It counts users, so they stay enabled for others.
pub struct BpfStats(#[expect(dead_code, reason = "kept open, not read")] OwnedFd);

/// Runs of a program and their time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTime {
    /// Number of runs.
    pub runs: u64,
    /// Total run time, ns, including the time to measure it.
    pub ns: u64,
}

impl BpfStats {
    /// Enables the statistics (`BPF_ENABLE_STATS`, Linux 5.8).
    ///
    /// # Errors
    ///
    /// When the kernel refuses, mostly for lack of privileges.
    pub fn switch_on() -> Result<Self, Note> {
        enable_stats(Stats::RunTime).map(Self).map_err(|error| {
            let is_privilege = error.io_error.raw_os_error() == Some(libc::EPERM);
            let error = (!is_privilege).then(|| error.io_error.to_string());
            Note::RunTimeUnknown { error }
        })
    }
}
