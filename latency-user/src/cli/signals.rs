//! Signals that end a run.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, SIGTERM and a lost terminal. The second Ctrl-C or SIGTERM ends the process at once.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes over the signals.
    ///
    /// # Errors
    ///
    /// When the kernel refuses handlers.
    pub fn new() -> Result<Self> {
        let take = |kind| signal(kind).context("install a signal handler");
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hang_up: take(SignalKind::hangup())?,
        })
    }

    /// Waits for the first signal.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
        for signal in [libc::SIGINT, libc::SIGTERM] {
            // SAFETY: restoring the default action of a signal touches no memory of ours.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}
