//! Tries the Debian package in running Debians: virtual machines with their kernels and systemd.
//!
//! Owns which releases are tried. `boot.sh` starts each, `try.sh` has the checks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{About, deb, tree::Tree};
use crate::{architecture::Architecture, build_ebpf, process, setup::apt, vm, workspace};

/// Releases of Debian with their kernels.
const RELEASES: [(&str, &str); 2] = [("bookworm", "6.1"), ("trixie", "6.12")];

/// What a release needs beside its essential packages.
const PACKAGES: &str = "systemd,systemd-sysv,procps";

const BOOT: &str = include_str!("boot.sh");
const TRY: &str = include_str!("try.sh");

/// Emulated, systemd takes a minute to start.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Tries the package `first` of `tree`, in each release.
pub(super) fn try_out(about: &About, tree: &Tree, first: &Path) -> Result<ExitCode> {
    if build_ebpf::find_program("mmdebstrap").is_none() {
        apt::install(&["mmdebstrap"])?;
    }
    let directory = workspace::root().join("target/packages/install");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let later = About {
        version: format!("{}+later", about.version),
        maintainer: about.maintainer.clone(),
        ..*about
    };
    let second = deb::make(&later, tree, &directory)?;
    let script = |name: &str, text: &str| -> Result<PathBuf> {
        let path = directory.join(name);
        fs::write(&path, text)?;
        process::run(Command::new("chmod").arg("755").arg(&path))?;
        Ok(path)
    };
    let (boot, checks) = (script("boot.sh", BOOT)?, script("try.sh", TRY)?);
    let expected = TRY.lines().filter(|line| line.starts_with("check ")).count() as u32;
    let (mut passed, mut failed) = (0, 0);
    for (release, kernel) in RELEASES {
        let archive = archive(release, &directory)?;
        process::step(&format!("trying the package in Debian {release}"));
        let files = vec![archive, checks.clone(), first.to_owned(), second.clone()];
        let names = files.iter().map(|path| path.to_string_lossy().into_owned());
        let command = [boot.to_string_lossy().into_owned()].into_iter().chain(names).collect();
        let guest = vm::Guest {
            kernel: kernel.to_owned(),
            architecture: Architecture::host()?,
            command,
            variables: Vec::new(),
            files,
            nics: Vec::new(),
            deadline: DEADLINE,
        };
        let before = passed + failed;
        vm::boot(&guest, &mut |line| {
            passed += u32::from(line.starts_with("ok: "));
            failed += u32::from(line.starts_with("FAILED: "));
        })?;
        // A machine that stopped in the middle has not checked the rest.
        failed += expected.saturating_sub(passed + failed - before);
    }
    println!("{passed} passed, {failed} failed, 0 skipped");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The file system of a release, made of its packages unless it is there.
fn archive(release: &str, directory: &Path) -> Result<PathBuf> {
    let path = directory.join(format!("{release}.tar"));
    if path.exists() {
        return Ok(path);
    }
    process::step(&format!("making a file system of Debian {release}"));
    let sources = directory.join(format!("{release}.sources"));
    let suites = [release.to_owned(), format!("{release}-security")];
    fs::write(&sources, apt::sources_of(&suites)?)?;
    let partial = directory.join(format!("{release}.partial.tar"));
    let mut make = process::as_root("mmdebstrap")?;
    make.args(["--variant=essential", &format!("--include={PACKAGES}"), release]);
    process::capture(make.arg(&partial).arg(&sources))?;
    fs::rename(&partial, &path)?;
    Ok(path)
}
