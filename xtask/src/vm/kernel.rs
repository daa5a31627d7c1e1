//! Debian's kernel packages: which one a series means now, fetched and unpacked, not installed.
//!
//! Owns the names of the meta-packages and the cache under `target/vm`. No full version stands
//! here, because Debian replaces kernel packages and takes the old ones away.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{cache, modules};
use crate::{process, setup::apt};

/// An unpacked kernel package.
pub(crate) struct Kernel {
    /// What `uname -r` says in it.
    pub(crate) release: String,
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// The directory that stands for `/`: modules lie in `lib/modules` below.
    pub(crate) root: PathBuf,
}

/// The newest kernel that apt knows of `series` (6.1, 6.12-rt, ...), fetched unless it is here.
pub(crate) fn fetch(series: &str) -> Result<Kernel> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("virtual machines need an x86_64 host, this one is {}", std::env::consts::ARCH);
    }
    if !apt::is_here() {
        bail!("kernels are fetched with apt-get, which is missing: use a Debian-like machine");
    }
    let package = match package(series) {
        Some(package) => package,
        None => {
            apt::update()?;
            package(series).with_context(|| unknown(series))?
        }
    };
    let version = apt::candidate(&package)
        .with_context(|| format!("apt knows {package} by name but has no version of it"))?;

    let directory = cache().join(format!("{package}_{version}"));
    if !directory.is_dir() {
        // Looked for before the long download.
        process::need("depmod")?;
        let partial = cache().join(format!("{package}_{version}.partial-{}", std::process::id()));
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot create {}", partial.display()))?;
        if apt::unpack(&package, &partial).is_err() {
            // The lists may be older than the archive.
            apt::update()?;
            apt::unpack(&package, &partial)?;
        }
        modules::index(&partial)?;
        // Renamed last, so that a directory of that name is complete. Two may race: either serves.
        if fs::rename(&partial, &directory).is_err() && !directory.is_dir() {
            bail!("cannot move {} to {}", partial.display(), directory.display());
        }
    }
    open(directory)
}

/// The real package that a meta-package of this series points to.
fn package(series: &str) -> Option<String> {
    let (number, flavour) = match series.strip_suffix("-rt") {
        Some(number) => (number, "rt"),
        None => (series, "cloud"),
    };
    // The release's own kernel has a meta-package without a number.
    let metas =
        [format!("linux-image-{number}-{flavour}-amd64"), format!("linux-image-{flavour}-amd64")];
    let real = format!("linux-image-{number}.");
    metas
        .iter()
        .filter_map(|meta| apt::depends(meta).ok())
        .flatten()
        .find(|package| package.starts_with(&real))
}

fn unknown(series: &str) -> String {
    format!("apt offers no kernel {series}: try 6.1, 6.12 or 6.12-rt (6.12 needs Debian's updates)")
}

fn open(root: PathBuf) -> Result<Kernel> {
    let modules = root.join("lib/modules");
    let release = only_entry(&modules)?;
    let image = root.join("boot").join(format!("vmlinuz-{release}"));
    if !image.is_file() {
        bail!("no kernel image at {}: remove {} and retry", image.display(), root.display());
    }
    Ok(Kernel { release, image, root })
}

/// The name of the one entry of a directory.
pub(crate) fn only_entry(directory: &Path) -> Result<String> {
    let mut entries = directory
        .read_dir()
        .with_context(|| format!("cannot read {}", directory.display()))?
        .filter_map(Result::ok);
    match (entries.next(), entries.next()) {
        (Some(only), None) => Ok(only.file_name().to_string_lossy().into_owned()),
        _ => bail!("expected exactly one entry in {}", directory.display()),
    }
}
