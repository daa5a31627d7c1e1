//! The kernel's statistics of how often and how long programs run.

use std::os::fd::OwnedFd;

use aya::sys::{Stats, enable_stats};

use crate::model::note::Note;

/// Statistics that are on as long as this lives; the kernel switches them off when the process
/// ends in whatever way. It counts who wants them, so others' wish stands.
pub struct BpfStats(#[expect(dead_code, reason = "is kept open, not read")] OwnedFd);

/// Runs of a program and the time in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTime {
    /// Runs.
    pub runs: u64,
    /// Time in them, ns, that of taking the time included.
    pub ns: u64,
}

impl BpfStats {
    /// Switches them on (`BPF_ENABLE_STATS`, Linux 5.8).
    ///
    /// # Errors
    ///
    /// Why the kernel refuses: mostly a missing privilege.
    pub fn switch_on() -> Result<Self, Note> {
        enable_stats(Stats::RunTime).map(Self).map_err(|error| {
            let is_privilege = error.io_error.raw_os_error() == Some(libc::EPERM);
            let error = (!is_privilege).then(|| error.io_error.to_string());
            Note::RunTimeUnknown { error }
        })
    }
}
