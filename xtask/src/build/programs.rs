//! Programs in the release profile: static, for this machine or another architecture.
//!
//! Owns the flags of such builds.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::cross::Cross;
use crate::{
    architecture::Architecture,
    process,
    workspace::{self, KERNEL_TESTS, TESTS_PACKAGE, artifacts},
};

/// Builds one binary in the release profile, static, for this machine, and returns its path.
pub(crate) fn release_binary(package: &str, name: &str) -> Result<PathBuf> {
    release_binary_for(package, name, Architecture::host()?)
}

/// As [`release_binary`], for another machine.
pub(crate) fn release_binary_for(
    package: &str,
    name: &str,
    architecture: Architecture,
) -> Result<PathBuf> {
    process::step(&format!("building {name}"));
    let mut build = cargo_for(architecture)?;
    build.args(["build", "--release", "--package", package, "--bin", name]);
    build.args(["--target", architecture.target()]);
    let artifacts = artifacts(&mut build)?;
    let found = artifacts.into_iter().find(|a| a.kind == "bin" && a.name == name);
    found.map(|a| a.executable).with_context(|| format!("cargo built no program named {name}"))
}

/// The directory of what [`release_binary`] builds.
pub(crate) fn release_directory(architecture: Architecture) -> PathBuf {
    workspace::root().join("target").join(architecture.target()).join("release")
}

/// A cargo whose builds with `--target` are static programs of an architecture.
fn cargo_for(architecture: Architecture) -> Result<Command> {
    let (mut cargo, mut flags) = match architecture.is_host() {
        true => (workspace::cargo(), Vec::new()),
        false => {
            let cross = Cross::fetch(architecture)?;
            (cross.cargo()?, cross.flags().to_vec())
        }
    };
    flags.extend(["-C", "target-feature=+crt-static", "-C", "strip=symbols"].map(str::to_owned));
    // With `--target`, they do not reach build scripts and macros, which cannot be static. Encoded,
    // so that a path with a space stays one argument.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    Ok(cargo)
}

/// Programs of the tests in machines of another architecture.
pub(crate) struct GuestPrograms {
    pub(crate) latency_user: PathBuf,
    pub(crate) load: PathBuf,
    pub(crate) kernel_tests: PathBuf,
}

/// Compiles the tests for machines of another architecture, and what they test. Without
/// optimization of the whole program, which takes longer than the tests.
pub(crate) fn guest_programs(architecture: Architecture, load: &str) -> Result<GuestPrograms> {
    process::step(&format!("building the kernel tests for {}", architecture.rust()));
    // In one command: two would resolve the features of dependencies differently, and compile twice.
    let mut build = cargo_for(architecture)?;
    build.env("CARGO_PROFILE_RELEASE_LTO", "off");
    build.args(["build", "--release", "--target", architecture.target()]);
    build.args(["--package", "latency-user", "--package", TESTS_PACKAGE]);
    build.args(["--bin", "latency-user", "--bin", load, "--test", KERNEL_TESTS]);
    let all = artifacts(&mut build)?;
    let find = |kind: &str, name: &str| {
        let found = all.iter().find(|artifact| artifact.kind == kind && artifact.name == name);
        let found = found.map(|artifact| artifact.executable.clone());
        found.with_context(|| format!("cargo built no {name}"))
    };
    Ok(GuestPrograms {
        latency_user: find("bin", "latency-user")?,
        load: find("bin", load)?,
        kernel_tests: find("test", KERNEL_TESTS)?,
    })
}
