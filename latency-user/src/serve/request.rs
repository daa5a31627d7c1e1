//! What the thread that writes recordings is asked for.

use std::{path::PathBuf, time::Duration};

use tokio::sync::oneshot;

/// The kind of a recording that `dump` asked for.
pub const BY_DUMP: &str = "manual";

/// The kind of a recording that SIGUSR2 asked for.
pub const BY_SIGNAL: &str = "signal";

/// A recording that somebody asked for.
pub struct Request {
    /// The newest data of this length.
    pub last: Duration,
    /// What asked.
    pub trigger: &'static str,
    /// Why, in the words of who asked.
    pub reason: String,
    /// Takes the path of the recording, or why there is none.
    pub reply: Option<oneshot::Sender<Result<PathBuf, String>>>,
}

/// Work of the thread.
pub enum Job {
    /// Capture the host, beside the recording of this name.
    Capture {
        /// The name.
        name: String,
    },
    /// Write a recording.
    Join {
        /// Links to its segments, and their directory.
        parts: (PathBuf, Vec<PathBuf>),
        /// Its name.
        name: String,
        /// What triggered it.
        trigger: &'static str,
        /// Why.
        reason: String,
        /// As in [`Request`].
        reply: Option<oneshot::Sender<Result<PathBuf, String>>>,
    },
}
