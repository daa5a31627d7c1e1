//! What the thread that writes recordings is asked for.

use std::{path::PathBuf, time::Duration};

use tokio::sync::oneshot;

/// What asks for recordings, beside triggers: `dump`, and SIGUSR2.
pub const REQUESTED: [&str; 2] = ["manual", "signal"];

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
