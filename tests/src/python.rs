//! Python with a second HdrHistogram implementation and OpenTelemetry's messages, in a private
//! virtual environment.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::tool;

/// The packages, pinned: other versions may give other results.
const PACKAGES: &str = "hdrhistogram==0.10.3 opentelemetry-proto==1.45.2";

/// The interpreter that has the packages. The first call installs them.
///
/// # Errors
///
/// When there is no `python3` with `venv`, or a package cannot be installed.
pub fn with_packages() -> Result<PathBuf> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?;
    let environment = Path::new(&manifest).join("../target/python");
    let python = environment.join("bin/python");
    // Written last, so that an interrupted installation is repeated.
    let complete = environment.join("complete");
    if fs::read_to_string(&complete).is_ok_and(|packages| packages == PACKAGES) {
        return Ok(python);
    }
    tool::run(&format!("python3 -m venv --clear {}", environment.display()))?;
    tool::run(&format!("{} -m pip install --quiet {PACKAGES}", python.display()))?;
    fs::write(&complete, PACKAGES).with_context(|| format!("write {}", complete.display()))?;
    Ok(python)
}

/// The path of a script or recording in `tests/fixtures`.
pub fn script(name: &str) -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| ".".into());
    Path::new(&manifest).join("fixtures").join(name)
}
