//! Exit statuses.

use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: success.
    Ok,
    /// 1: an error; or a ledger does not balance.
    Failed,
    /// 2: wrong usage.
    Usage,
    /// 3: a privilege or kernel feature is missing.
    Unsupported,
    /// 4: `triage` found something, `compare` or `experiment` found it worse.
    Found,
    /// The status of the traced command, passed on.
    Command(u8),
}

impl Exit {
    /// The status as a number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unsupported => 3,
            Self::Found => 4,
            Self::Command(status) => status,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
