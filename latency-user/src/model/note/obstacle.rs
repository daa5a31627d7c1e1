//! Obstacles: why a stage cannot be timed by a method on this kernel.

use serde::{Deserialize, Serialize};

/// Why a method does not work. Its text is with those of the notes, in `text`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Obstacle {
    /// The stage has no such method.
    NotDefined,
    /// The kernel was built without kprobes.
    NoKprobes,
    /// A tracepoint is missing.
    NoTracepoint {
        /// Its name, with its group.
        tracepoint: String,
    },
    /// A function is missing from the kernel's type information.
    NoFunctionType {
        /// Its name.
        function: String,
    },
    /// A function cannot be probed: it was inlined or renamed.
    NoFunction {
        /// Its name.
        function: String,
    },
    /// The kernel refused to load the program.
    LoadRefused {
        /// The error.
        error: String,
        /// The verifier's last message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        verifier: Option<String>,
    },
    /// The kernel refused to attach the program.
    AttachRefused {
        /// The system call.
        call: String,
        /// The error.
        error: String,
    },
    /// The kernel has no trampoline for the function.
    #[serde(alias = "too-many-arguments")]
    NoTrampoline,
    /// Something else.
    Failed {
        /// The error.
        error: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_former_name_in_recordings_is_read() -> serde_json::Result<()> {
        let read: Obstacle = serde_json::from_str(r#"{"reason":"too-many-arguments"}"#)?;
        assert_eq!(read, Obstacle::NoTrampoline);
        Ok(())
    }
}
