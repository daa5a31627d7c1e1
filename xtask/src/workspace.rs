//! The workspace: its directory, its binaries and its test programs.
//!
//! Owns every cargo call that builds for the host, and the names of the packages. `build_ebpf`
//! compiles the eBPF crates.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{architecture::Architecture, build_ebpf, process};

/// Crates for the BPF target; on the host they are empty programs.
pub(crate) const EBPF_PACKAGES: [&str; 3] =
    ["latency-ebpf", "stall-injector-ebpf", "bench-noop-ebpf"];
/// The package of the system tests, and its test program that needs root.
pub(crate) const TESTS_PACKAGE: &str = "latency-tests";
pub(crate) const KERNEL_TESTS: &str = "kernel";

/// One program that cargo compiled.
pub(crate) struct Artifact {
    pub(crate) package: String,
    /// `bin`, `lib`, `test`, ...
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) executable: PathBuf,
}

/// The directory of the workspace's Cargo.toml.
pub(crate) fn root() -> PathBuf {
    let xtask = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The cargo that started xtask, run in the workspace's directory.
pub(crate) fn cargo() -> Command {
    plain_cargo(Path::new(&env::var_os("CARGO").unwrap_or_else(|| "cargo".into())))
}

/// As [`cargo`], of another compiler.
pub(crate) fn plain_cargo(program: &Path) -> Command {
    let mut cargo = Command::new(program);
    cargo.current_dir(root());
    // `cargo run` sets these for xtask; a build would treat them as changed inputs.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name.as_ref());
        }
    }
    cargo
}

/// Compiles all eBPF programs for kernels of this machine and returns the directory of their
/// objects.
pub(crate) fn build_ebpf() -> Result<PathBuf> {
    build_ebpf_for(Architecture::host()?)
}

/// As [`build_ebpf()`], for another machine.
pub(crate) fn build_ebpf_for(architecture: Architecture) -> Result<PathBuf> {
    process::step("compiling the eBPF programs");
    let objects = build_ebpf::build(&root(), &EBPF_PACKAGES, architecture.rust())?;
    for package in EBPF_PACKAGES {
        let object = objects.join(package);
        if !object.is_file() {
            bail!("cargo built {package} but left no object at {}", object.display());
        }
        process::step(&format!("built {}", object.display()));
    }
    Ok(objects)
}

/// Compiles every test program of the system tests.
pub(crate) fn system_tests() -> Result<Vec<Artifact>> {
    process::step("building the system tests");
    let mut build = cargo();
    build.args(["test", "--no-run", "--package", TESTS_PACKAGE]);
    let mut artifacts = artifacts(&mut build)?;
    artifacts.retain(|artifact| artifact.package == TESTS_PACKAGE);
    Ok(artifacts)
}

/// Runs a cargo build command and returns the programs in its messages.
pub(crate) fn artifacts(build: &mut Command) -> Result<Vec<Artifact>> {
    build.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output =
        build.output().with_context(|| format!("cannot start `{}`", process::line(build)))?;
    if !output.status.success() {
        bail!("`{}` failed ({})", process::line(build), output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    Ok(messages.lines().filter_map(|line| artifact(&serde_json::from_str(line).ok()?)).collect())
}

/// The program in one of cargo's messages; `None` for other messages.
fn artifact(message: &Value) -> Option<Artifact> {
    let executable = PathBuf::from(message.get("executable")?.as_str()?);
    let target = message.get("target")?;
    let manifest = Path::new(message.get("manifest_path")?.as_str()?);
    Some(Artifact {
        package: package_name(message.get("package_id")?.as_str()?, manifest)?,
        kind: target.get("kind")?.get(0)?.as_str()?.to_owned(),
        name: target.get("name")?.as_str()?.to_owned(),
        executable,
    })
}

/// A package id ends in `#name@version`, or in `/name#version` if the directory has the same name.
fn package_name(id: &str, manifest: &Path) -> Option<String> {
    let fragment = id.rsplit_once('#').map_or(id, |(_, fragment)| fragment);
    match fragment.split_once('@') {
        Some((name, _)) => Some(name.to_owned()),
        None => Some(manifest.parent()?.file_name()?.to_string_lossy().into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_names_are_read_from_both_forms_of_id() {
        let manifest = Path::new("/w/latency-user/Cargo.toml");
        let named = package_name("path+file:///w/tests#latency-tests@0.1.0", manifest);
        assert_eq!(named.as_deref(), Some("latency-tests"));
        let same_name = package_name("path+file:///w/latency-user#0.1.0", manifest);
        assert_eq!(same_name.as_deref(), Some("latency-user"));
    }

    #[test]
    fn messages_without_a_program_are_ignored() {
        let library = r#"{"reason":"compiler-artifact","executable":null,"target":{}}"#;
        assert!(artifact(&serde_json::from_str(library).unwrap()).is_none());
    }
}
