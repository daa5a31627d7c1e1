//! Debian packages that tests use without installing them: their services would start.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use super::apt;
use crate::workspace;

/// It scrapes the daemon.
pub(crate) const PROMETHEUS: &str = "prometheus";

/// The directory of an unpacked package, downloaded unless it is there.
pub(crate) fn package(name: &str) -> Result<PathBuf> {
    let cache = workspace::root().join("target/packages");
    if apt::candidate(name).is_none() {
        apt::update()?;
    }
    let version =
        apt::candidate(name).with_context(|| format!("apt knows no version of package {name}"))?;
    // The epoch of a version has a colon.
    let directory = cache.join(format!("{name}_{}", version.replace(':', "%")));
    if directory.is_dir() {
        return Ok(directory);
    }
    let partial = cache.join(format!("{name}.partial-{}", std::process::id()));
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    if apt::unpack(name, &partial).is_err() {
        // The package lists may be outdated.
        apt::update()?;
        apt::unpack(name, &partial)?;
    }
    // Renamed last, so that a directory of that name is complete.
    if fs::rename(&partial, &directory).is_err() && !directory.is_dir() {
        bail!("cannot move {} to {}", partial.display(), directory.display());
    }
    Ok(directory)
}
