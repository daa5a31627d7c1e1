//! Programs for a machine of another architecture: Debian's packages with all that they need,
//! unpacked.
//!
//! Owns the list of packages. A machine of the host's architecture gets the host's programs.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::{archive::Archive, cache};
use crate::{
    architecture::Architecture,
    setup::apt::{self, Installed, Private},
};

/// What has the programs that tests use.
const PACKAGES: [&str; 8] = [
    "busybox-static",
    "bash",
    "iproute2",
    "ethtool",
    "bpftool",
    "nftables",
    "iperf3",
    "util-linux",
];

/// Where its busybox is.
pub(super) const BUSYBOX: &str = "/usr/bin/busybox";

/// Not needed to run a program.
const LEFT_OUT: [&str; 3] = ["usr/share", "usr/include", "var"];

/// Adds the programs to a machine.
pub(super) fn pack(architecture: Architecture, archive: &mut Archive) -> Result<()> {
    let root = fetch(architecture)?;
    for link in ["bin", "sbin", "lib"] {
        archive.symlink(&Path::new("/").join(link), &Path::new("usr").join(link));
    }
    add(&root, Path::new(""), archive)
}

fn add(root: &Path, directory: &Path, archive: &mut Archive) -> Result<()> {
    for entry in root.join(directory).read_dir()? {
        let entry = entry?;
        let path = directory.join(entry.file_name());
        if LEFT_OUT.iter().any(|left_out| path == Path::new(left_out)) {
            continue;
        }
        // Packages of Debian 12 have files in `/bin`, which a running system links to `/usr/bin`.
        let is_linked = ["bin", "sbin", "lib"].iter().any(|link| path.starts_with(link));
        let place = Path::new("/").join(if is_linked { "usr" } else { "" }).join(&path);
        let kind = entry.file_type()?;
        if kind.is_dir() {
            add(root, &path, archive)?;
        } else if kind.is_symlink() {
            archive.symlink(&place, &entry.path().read_link()?);
        } else {
            archive.file(&place, entry.path());
        }
    }
    Ok(())
}

/// The directory with the unpacked packages, downloaded unless cached.
fn fetch(architecture: Architecture) -> Result<PathBuf> {
    let release = apt::release()?;
    let debian = architecture.debian();
    let lists = cache::directory().join(format!("apt/userland-{debian}"));
    let suites = [format!("{release}-security"), release];
    let lists = Private::open(&lists, &suites, debian, Installed::Nothing)?;
    let packages = lists.needed(&PACKAGES)?;
    let mut hasher = DefaultHasher::new();
    packages.hash(&mut hasher);
    let root = cache::directory().join(format!("userland-{debian}_{:016x}", hasher.finish()));
    lists.unpack_all(&packages, &root)?;
    Ok(root)
}
