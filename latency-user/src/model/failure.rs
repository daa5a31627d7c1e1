//! Failures that a user can act on: an exit status and the next step.

use std::fmt;

/// An error with the exit status that it ends the program with, and a hint.
#[derive(Debug)]
pub struct Failure {
    /// Exit status: 1 could not do it, 2 usage, 3 missing privilege or kernel feature.
    pub status: u8,
    /// What is wrong, and where.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// Something could not be done: exit status 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { status: 1, message: message.into(), hint: None }
    }

    /// A privilege or kernel feature is missing: exit status 3.
    pub fn missing(message: impl Into<String>) -> Self {
        Self { status: 3, message: message.into(), hint: None }
    }

    /// Adds the next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
