//! Debian packages that tests use without installing them: their services would start.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{apt, folder};
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
    folder::complete(&directory, |partial| {
        if apt::unpack(name, partial).is_ok() {
            return Ok(());
        }
        // The package lists may be outdated.
        apt::update()?;
        apt::unpack(name, partial)
    })?;
    Ok(directory)
}
