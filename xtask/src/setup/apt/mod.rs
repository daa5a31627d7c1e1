//! The Debian package manager: queries, installs, and unpacks packages without installing them.
//!
//! Owns every call of apt, with `private` for other releases and architectures than the machine's.
//! Callers decide which packages they need.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, bail};

use crate::{build_ebpf, process};

mod private;

pub(crate) use private::{Installed, Private, release, sources_of, unpack_all};

/// Installs `packages`; does nothing, not even an update, for an empty list.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if !is_here() {
        bail!(
            "programs of the Debian packages {} are missing, and there is no apt-get here: install \
             them with your own package manager",
            packages.join(" ")
        );
    }
    update()?;
    process::step(&format!("apt-get install {}", packages.join(" ")));
    let mut install = apt_get()?;
    install.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    process::run(&mut install).with_context(|| format!("cannot install {}", packages.join(" ")))
}

pub(crate) fn is_here() -> bool {
    build_ebpf::find_program("apt-get").is_some()
}

/// Updates the package lists, at most once per process.
pub(crate) fn update() -> Result<()> {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    process::step("apt-get update");
    process::run(apt_get()?.args(["update", "--quiet"])).context("cannot update the package lists")
}

/// Whether all `packages` can be installed according to the current package lists.
pub(crate) fn offers(packages: &[&str]) -> bool {
    is_here() && packages.iter().all(|package| candidate(package).is_some())
}

/// The version that apt would install.
pub(crate) fn candidate(package: &str) -> Option<String> {
    candidate_by(apt_cache(), package)
}

fn candidate_by(mut cache: Command, package: &str) -> Option<String> {
    let policy = process::capture(cache.args(["policy", package])).ok()?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:"))?.trim();
    (version != "(none)").then(|| version.to_owned())
}

/// Dependencies of `package` in their order, including alternatives.
fn depends_by(mut cache: Command, package: &str) -> Result<Vec<String>> {
    let lines = process::capture(cache.args(["depends", package]))?;
    let names = lines.lines().filter_map(|line| line.trim().strip_prefix("Depends:"));
    Ok(names.map(|name| name.trim().to_owned()).collect())
}

/// Unpacks `package` into `directory` without installing it; needs no root.
pub(crate) fn unpack(package: &str, directory: &Path) -> Result<()> {
    unpack_by(Command::new("apt-get"), package, directory)
}

fn unpack_by(mut download: Command, package: &str, directory: &Path) -> Result<()> {
    process::step(&format!("apt-get download {package}"));
    // Sandboxed, apt would need a directory that its own user may write to.
    download.args(["download", "--quiet", "--option", "APT::Sandbox::User=root", package]);
    process::capture(download.current_dir(directory))?;
    let archive = directory
        .read_dir()?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get download {package} left no archive"))?;
    process::run(Command::new("dpkg").arg("--extract").arg(&archive).arg(directory))?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))
}

fn apt_cache() -> Command {
    let mut command = Command::new("apt-cache");
    command.env("LC_ALL", "C");
    command
}

fn apt_get() -> Result<Command> {
    // `env`, because sudo does not pass the variable on.
    let mut command = process::as_root("env")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    // Another apt may be running (unattended upgrades): wait instead of failing.
    command.args(["--option", "DPkg::Lock::Timeout=300"]);
    Ok(command)
}
