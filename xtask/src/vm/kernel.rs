//! Debian's kernel packages: finds the current one of a series, downloads and unpacks it without
//! installing it.
//!
//! Owns the names of the meta-packages and the cached kernels. Contains no full version, because
//! Debian replaces kernel packages and removes the old ones.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::cache;
use crate::{process, setup::apt};

/// An unpacked kernel package.
pub(crate) struct Kernel {
    /// Its `uname -r`.
    pub(crate) release: String,
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// Root of the unpacked package: modules are in `lib/modules` below it.
    pub(crate) root: PathBuf,
}

/// The newest kernel of `series` (6.1, 6.12-rt, ...) that apt knows, downloaded unless cached.
pub(crate) fn fetch(series: &str) -> Result<Kernel> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("virtual machines need an x86_64 host, this one is {}", std::env::consts::ARCH);
    }
    if !apt::is_here() {
        bail!("kernels are downloaded with apt-get, which is missing: use a Debian-based machine");
    }
    let package = match package(series) {
        Some(package) => package,
        None => {
            apt::update()?;
            package(series).with_context(|| unknown(series))?
        }
    };
    let version = apt::candidate(&package)
        .with_context(|| format!("apt knows package {package} but no version of it"))?;

    let directory = cache::directory().join(format!("{package}_{version}"));
    if !directory.is_dir() {
        // Checked before the long download.
        process::need("depmod")?;
        let partial =
            cache::directory().join(format!("{package}_{version}.partial-{}", std::process::id()));
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot create {}", partial.display()))?;
        if apt::unpack(&package, &partial).is_err() {
            // The package lists may be outdated.
            apt::update()?;
            apt::unpack(&package, &partial)?;
        }
        index_modules(&partial)?;
        // Renamed last, so that a directory of that name is complete. Two processes may race:
        // either result will do.
        if fs::rename(&partial, &directory).is_err() && !directory.is_dir() {
            bail!("cannot move {} to {}", partial.display(), directory.display());
        }
    }
    open(directory)
}

/// The package that the meta-package of this series depends on.
fn package(series: &str) -> Option<String> {
    let (number, flavour) = match series.rsplit_once('-') {
        Some((number, "rt")) => (number, "-rt"),
        Some((number, "full")) => (number, ""),
        _ => (series, "-cloud"),
    };
    // The meta-package of the release's default kernel has no number.
    let metas =
        [format!("linux-image-{number}{flavour}-amd64"), format!("linux-image{flavour}-amd64")];
    let prefix = format!("linux-image-{number}.");
    metas
        .iter()
        .filter_map(|meta| apt::depends(meta).ok())
        .flatten()
        .find(|package| package.starts_with(&prefix))
}

fn unknown(series: &str) -> String {
    format!(
        "apt has no kernel {series}: try 6.1, 6.12, 6.12-rt or 6.12-full (6.12 needs Debian's updates)"
    )
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

/// Writes `modules.dep`, which the package lacks: its installation scripts would run depmod.
fn index_modules(root: &Path) -> Result<()> {
    let release = only_entry(&root.join("lib/modules"))?;
    let mut depmod = Command::new(process::need("depmod")?);
    process::run(depmod.arg("--basedir").arg(root).arg(release))
}

/// The name of the only entry of a directory.
fn only_entry(directory: &Path) -> Result<String> {
    let mut entries = directory
        .read_dir()
        .with_context(|| format!("cannot read {}", directory.display()))?
        .filter_map(Result::ok);
    match (entries.next(), entries.next()) {
        (Some(only), None) => Ok(only.file_name().to_string_lossy().into_owned()),
        _ => bail!("expected exactly one entry in {}", directory.display()),
    }
}
