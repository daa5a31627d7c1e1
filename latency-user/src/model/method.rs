//! Methods: how a stage is probed.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How a stage is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Raw tracepoints.
    Tracepoint,
    /// Trampolines at function entry and exit.
    Fentry,
    /// kprobe and kretprobe.
    Kprobe,
}

impl Method {
    /// Its name on the command line and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Tracepoint, Self::Fentry, Self::Kprobe]
            .into_iter()
            .find(|method| method.name() == name)
            .ok_or_else(|| format!("unknown method {name:?}: tracepoint, fentry or kprobe"))
    }
}
