//! Node.js with a third HdrHistogram implementation, installed in a private directory.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::tool;

/// The package, pinned: other versions may give other results.
const PACKAGE: &str = "hdr-histogram-js@3.0.1";

/// The `node_modules` directory that contains it. The first call installs the package.
///
/// # Errors
///
/// When there is no `npm`, or the package cannot be installed.
pub fn with_hdrhistogram() -> Result<PathBuf> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?;
    let directory = Path::new(&manifest).join("../target/javascript");
    // Written last, so that an interrupted installation is repeated.
    let complete = directory.join("complete");
    if !fs::read_to_string(&complete).is_ok_and(|package| package == PACKAGE) {
        let prefix = directory.display();
        tool::run(&format!("npm install --no-audit --no-fund --prefix {prefix} {PACKAGE}"))?;
        fs::write(&complete, PACKAGE).with_context(|| format!("write {}", complete.display()))?;
    }
    Ok(directory.join("node_modules"))
}
