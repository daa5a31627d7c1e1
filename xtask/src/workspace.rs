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

use crate::{architecture::Architecture, build::Cross, build_ebpf, process};

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

/// As [`build_ebpf`], for another machine.
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
    root().join("target").join(architecture.target()).join("release")
}

/// A cargo whose builds with `--target` are static programs of an architecture.
fn cargo_for(architecture: Architecture) -> Result<Command> {
    let (mut cargo, mut flags) = match architecture.is_host() {
        true => (cargo(), Vec::new()),
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

/// Compiles every test program of the system tests.
pub(crate) fn system_tests() -> Result<Vec<Artifact>> {
    process::step("building the system tests");
    let mut build = cargo();
    build.args(["test", "--no-run", "--package", TESTS_PACKAGE]);
    let mut artifacts = artifacts(&mut build)?;
    artifacts.retain(|artifact| artifact.package == TESTS_PACKAGE);
    Ok(artifacts)
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

/// Runs a cargo build command and returns the programs in its messages.
fn artifacts(build: &mut Command) -> Result<Vec<Artifact>> {
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
