//! axe-core, which checks pages for accessibility.

use std::{env, fs, path::Path};

use anyhow::{Context, Result};

use crate::tool;

/// The package, pinned: other versions have other rules.
const PACKAGE: &str = "axe-core@4.14.1";

/// The source of its script. The first call installs the package.
///
/// # Errors
///
/// When there is no `npm`, or the package cannot be installed.
pub fn script() -> Result<String> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?;
    let directory = Path::new(&manifest).join("../target/axe");
    // Written last, so that an interrupted installation is repeated.
    let complete = directory.join("complete");
    if !fs::read_to_string(&complete).is_ok_and(|package| package == PACKAGE) {
        let directory = directory.display();
        tool::run(&format!("npm install --no-audit --no-fund --prefix {directory} {PACKAGE}"))?;
        fs::write(&complete, PACKAGE).with_context(|| format!("write {}", complete.display()))?;
    }
    let script = directory.join("node_modules/axe-core/axe.min.js");
    fs::read_to_string(&script).with_context(|| format!("read {}", script.display()))
}
