//! A newer QEMU than the system's, unpacked from Debian's backports beside it and not installed.
//!
//! Owns where it is and how it is started.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::cache;
use crate::{
    architecture::Architecture,
    setup::apt::{self, Installed, Private},
};

const PACKAGE: &str = "qemu-system-x86";
const PROGRAM: &str = "usr/bin/qemu-system-x86_64";

/// An unpacked QEMU.
pub(crate) struct Emulator {
    root: PathBuf,
}

impl Emulator {
    /// The newest QEMU of the backports, downloaded unless cached.
    pub(crate) fn fetch() -> Result<Self> {
        let host = Architecture::host()?;
        let release = apt::release()?;
        let suites = [release.clone(), format!("{release}-backports")];
        let lists = cache::directory().join("apt/backports");
        let backports = Private::open(&lists, &suites, host.debian(), Installed::Here)?;
        let packages = backports.needed(&[PACKAGE])?;
        let version = packages.iter().find_map(|package| package.strip_prefix("qemu-system-x86="));
        let version = version.context("the backports have no newer QEMU than the system")?;
        let root = cache::directory().join(format!("{PACKAGE}_{}", version.replace(':', "_")));
        backports.unpack_all(&packages, &root)?;
        Ok(Self { root })
    }

    /// Its program.
    pub(super) fn program(&self) -> PathBuf {
        self.root.join(PROGRAM)
    }

    /// Adds where its firmware is to its arguments, and its libraries to its environment.
    pub(super) fn prepare(&self, command: &mut Command) {
        let libraries = self.root.join("usr/lib/x86_64-linux-gnu");
        command.env("LD_LIBRARY_PATH", &libraries);
        command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
        for firmware in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            // Those that are not among the unpacked packages are the system's.
            for root in [self.root.as_path(), Path::new("/")] {
                let directory = root.join(firmware);
                if directory.is_dir() {
                    command.arg("-L").arg(directory);
                }
            }
        }
    }
}
