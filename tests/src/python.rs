//! Python with a second implementation of HdrHistogram, in a virtual environment of the tests'
//! own.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::tool;

/// The packages, pinned: another version is another second opinion.
const PACKAGES: &str = "hdrhistogram==0.10.3";

/// The interpreter that has the package `hdrhistogram`; installed by the first call.
///
/// # Errors
///
/// When there is no `python3` with `venv`, or the package cannot be installed.
pub fn with_hdrhistogram() -> Result<PathBuf> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?;
    let environment = Path::new(&manifest).join("../target/python");
    let python = environment.join("bin/python");
    // Written last: an installation that was cut short is made anew.
    let complete = environment.join("complete");
    if fs::read_to_string(&complete).is_ok_and(|packages| packages == PACKAGES) {
        return Ok(python);
    }
    tool::run(&format!("python3 -m venv --clear {}", environment.display()))?;
    tool::run(&format!("{} -m pip install --quiet {PACKAGES}", python.display()))?;
    fs::write(&complete, PACKAGES).with_context(|| format!("write {}", complete.display()))?;
    Ok(python)
}

/// Where a script of `tests/fixtures` lies.
pub fn script(name: &str) -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| ".".into());
    Path::new(&manifest).join("fixtures").join(name)
}
