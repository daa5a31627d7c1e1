//! The architectures that latency-user is built for.
//!
//! Owns their names: those of Rust, Debian and QEMU differ.

use std::env::consts::ARCH;

use anyhow::{Context, Result};

/// An architecture of machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Architecture {
    /// x86-64
    Amd64,
    /// 64-bit Arm
    Arm64,
}

impl Architecture {
    pub(crate) const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// This machine's.
    pub(crate) fn host() -> Result<Self> {
        let found = Self::ALL.into_iter().find(|architecture| architecture.rust() == ARCH);
        found.with_context(|| format!("latency-user is not built for {ARCH}: x86_64 or aarch64"))
    }

    /// Whether this machine's programs are of this architecture.
    pub(crate) fn is_host(self) -> bool {
        self.rust() == ARCH
    }

    /// The architecture of a target that cargo names, `aarch64-unknown-linux-gnu`.
    pub(crate) fn of_target(target: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|architecture| architecture.target() == target);
        found.ok_or_else(|| {
            let targets = Self::ALL.map(Self::target).join(" or ");
            format!("expected {targets}")
        })
    }

    /// As Rust and the kernel name it.
    pub(crate) const fn rust(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// As Debian names it.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Cargo's target.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// As the GNU tools and Debian's library directories name it.
    pub(crate) const fn gnu(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }
}
