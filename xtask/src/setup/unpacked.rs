//! Debian packages that tests use without installing them: their services would start.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{apt, folder};
use crate::workspace;

/// The directory of Prometheus, which scrapes the daemon, and its tool, which checks metrics and
/// rules.
pub(crate) fn prometheus() -> Result<PathBuf> {
    // The tool is in a package of its own since Debian 13.
    package("prometheus", &["promtool"])
}

/// The directory of an unpacked package and its `parts`, as far as Debian has them, downloaded unless
/// it is there.
fn package(name: &str, parts: &[&str]) -> Result<PathBuf> {
    let cache = workspace::root().join("target/packages");
    if apt::candidate(name).is_none() {
        apt::update()?;
    }
    let version =
        apt::candidate(name).with_context(|| format!("apt knows no version of package {name}"))?;
    // The epoch of a version has a colon.
    let directory = cache.join(format!("{name}_{}", version.replace(':', "%")));
    let unpack = |partial: &Path| {
        apt::unpack(name, partial)?;
        let mut known = parts.iter().filter(|part| apt::candidate(part).is_some());
        known.try_for_each(|part| apt::unpack(part, partial))
    };
    folder::complete(&directory, |partial| {
        if unpack(partial).is_ok() {
            return Ok(());
        }
        // The package lists may be outdated.
        apt::update()?;
        unpack(partial)
    })?;
    Ok(directory)
}
