//! A newer QEMU than the system's, unpacked from Debian's backports beside it and not installed.
//!
//! Owns where it is and how it is started.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::cache;
use crate::{process, setup::apt};

const PACKAGE: &str = "qemu-system-x86";
const PROGRAM: &str = "usr/bin/qemu-system-x86_64";

/// An unpacked QEMU.
pub(crate) struct Emulator {
    root: PathBuf,
}

impl Emulator {
    /// The newest QEMU of the backports, downloaded unless cached.
    pub(crate) fn fetch() -> Result<Self> {
        let backports = apt::Backports::open(&cache::directory().join("apt"))?;
        let packages = backports.needed(PACKAGE)?;
        let version = packages.iter().find_map(|package| package.strip_prefix("qemu-system-x86="));
        let version = version.context("the backports have no newer QEMU than the system")?;
        let root = cache::directory().join(format!("{PACKAGE}_{}", version.replace(':', "_")));
        if !root.is_dir() {
            let partial = root.with_extension(format!("partial-{}", std::process::id()));
            fs::create_dir_all(&partial)
                .with_context(|| format!("cannot create {}", partial.display()))?;
            process::step(&format!("unpacking {}", packages.join(" ")));
            for package in &packages {
                backports.unpack(package, &partial)?;
            }
            if fs::rename(&partial, &root).is_err() && !root.is_dir() {
                bail!("cannot move {} to {}", partial.display(), root.display());
            }
        }
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
