//! Debian's kernel packages: finds the newest one of a series in Debian's releases, downloads and
//! unpacks it without installing it.
//!
//! Owns where kernels are looked for and the cached ones. Contains no full version, because Debian
//! replaces kernel packages and removes the old ones.

use std::{
    cmp::Reverse,
    os::unix,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::cache;
use crate::{
    architecture::Architecture,
    process,
    setup::{
        apt::{self, Installed, Private},
        folder,
    },
};

/// An unpacked kernel package.
pub(crate) struct Kernel {
    /// Its `uname -r`.
    pub(crate) release: String,
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// Root of the unpacked package: modules are in `lib/modules` below it.
    pub(crate) root: PathBuf,
}

/// Releases of Debian with the suites that have kernels, the preferred one last.
const RELEASES: [&[&str]; 4] = [
    &["bullseye-security", "bullseye"],
    &["bookworm-backports", "bookworm-security", "bookworm"],
    &["trixie-backports", "trixie-security", "trixie"],
    &["sid"],
];

/// How many packages of a series are tried, from the newest on: a mirror may lack the file of one
/// that it lists.
const TRIED: usize = 10;

/// The series that is the newest kernel of all.
pub(crate) const NEWEST: &str = "newest";

/// The newest kernel of `series` (6.1, 6.12-rt, newest, ...) that Debian has, downloaded unless
/// cached.
pub(crate) fn fetch(series: &str, architecture: Architecture) -> Result<Kernel> {
    if !apt::is_here() {
        bail!("kernels are downloaded with apt-get, which is missing: use a Debian-based machine");
    }
    let pattern = pattern(series, architecture);
    let here = apt::release()?;
    // The machine's own release first: its mirror is there for sure.
    let (own, others): (Vec<&[&str]>, Vec<_>) =
        RELEASES.into_iter().partition(|suites| suites.contains(&here.as_str()));
    let mut releases: Vec<_> = own.into_iter().chain(others).collect();
    if series.starts_with(NEWEST) {
        releases.reverse();
        releases.sort_by_key(|suites| !suites.contains(&"sid"));
    }
    let mut errors = Vec::new();
    for suites in releases {
        match fetch_from(suites, &pattern, architecture) {
            Ok(Some(kernel)) => return Ok(kernel),
            Ok(None) => {}
            Err(error) => errors.push(format!("{error:#}")),
        }
    }
    let debian = architecture.debian();
    if errors.is_empty() {
        bail!(
            "Debian has no kernel {series} for {debian}: try 5.10, 6.1, 6.12, 6.18, {NEWEST}, or \
             one of them with -rt, or -full for all drivers"
        )
    }
    bail!("cannot get a kernel {series} for {debian}: {}", errors.join("; "))
}

/// Looks in one release of Debian.
fn fetch_from(
    suites: &[&str],
    pattern: &str,
    architecture: Architecture,
) -> Result<Option<Kernel>> {
    let preferred = suites.last().copied().unwrap_or_default();
    let debian = architecture.debian();
    let lists = cache::directory().join(format!("apt/{preferred}-{debian}"));
    let suites: Vec<_> = suites.iter().map(|suite| (*suite).to_owned()).collect();
    let lists = Private::open(&lists, &suites, debian, Installed::Nothing)?;
    let mut last = None;
    for package in newest_first(lists.names(pattern)?).into_iter().take(TRIED) {
        match fetch_package(&lists, &package) {
            Ok(kernel) => return Ok(Some(kernel)),
            Err(error) => last = Some(error),
        }
    }
    last.map_or(Ok(None), Err)
}

/// Downloads and unpacks one package, unless that was done before.
fn fetch_package(lists: &Private, package: &str) -> Result<Kernel> {
    let version = lists
        .candidate(package)
        .with_context(|| format!("apt knows package {package} but no version of it"))?;

    let directory = cache::directory().join(format!("{package}_{version}"));
    folder::complete(&directory, |partial| {
        // Checked before the long download.
        process::need("depmod")?;
        lists.unpack(package, partial)?;
        // From 6.19 on, the image and the modules are in packages of their own.
        let parts = |name: &String| {
            ["linux-binary-", "linux-modules-"].iter().any(|prefix| name.starts_with(prefix))
        };
        for part in lists.depends(package)?.into_iter().filter(parts) {
            lists.unpack(&part, partial)?;
        }
        index_modules(partial)
    })?;
    open(directory)
}

/// The names of a series' packages, as a regular expression.
fn pattern(series: &str, architecture: Architecture) -> String {
    let (number, flavour, suffix) = match series.rsplit_once('-') {
        Some((number, "rt")) => (number, "-rt", ""),
        Some((number, "full")) => (number, "", ""),
        // Pages of 16 KiB, all drivers.
        Some((number, "16k")) => (number, "", "-16k"),
        _ => (series, "-cloud", ""),
    };
    let number = match number {
        NEWEST => "[0-9]+[.]".to_owned(),
        number => format!("{}[.]", number.replace('.', "[.]")),
    };
    let debian = architecture.debian();
    format!("^linux-image-{number}[^-]*(-[0-9]+)?{flavour}-{debian}{suffix}$")
}

/// The names by version, the highest one first: digits count as numbers.
fn newest_first(mut names: Vec<String>) -> Vec<String> {
    names.sort_by_cached_key(|name| {
        let numbers = name.split(|c: char| !c.is_ascii_digit());
        Reverse(numbers.filter_map(|number| number.parse().ok()).collect::<Vec<u64>>())
    });
    names
}

fn open(root: PathBuf) -> Result<Kernel> {
    let release = only_entry(&root.join("lib/modules"))?;
    let places = [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")];
    let image = places.iter().map(|place| root.join(place)).find(|image| image.is_file());
    let image = image
        .with_context(|| format!("no kernel image in {}: remove it and retry", root.display()))?;
    Ok(Kernel { release, image, root })
}

/// Writes `modules.dep`, which the package lacks: its installation scripts would run depmod.
fn index_modules(root: &Path) -> Result<()> {
    // Since Debian 13 packages have the directory that `/lib` is a link to.
    if !root.join("lib").exists() {
        unix::fs::symlink("usr/lib", root.join("lib")).context("link usr/lib as lib")?;
    }
    let release = only_entry(&root.join("lib/modules"))?;
    let mut depmod = Command::new(process::need("depmod")?);
    process::run(depmod.arg("--basedir").arg(root).arg(release))
}

/// The name of the only entry of a directory.
fn only_entry(directory: &Path) -> Result<String> {
    let mut entries = directory
        .read_dir()
        .with_context(|| format!("cannot read {}", directory.display()))?
        .filter_map(Result::ok);
    match (entries.next(), entries.next()) {
        (Some(only), None) => Ok(only.file_name().to_string_lossy().into_owned()),
        _ => bail!("expected exactly one entry in {}", directory.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_versions_are_compared_as_numbers() {
        let names = ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-49-cloud-amd64"];
        assert_eq!(newest_first(names.map(str::to_owned).into()), [names[1], names[0]]);
        let names = ["linux-image-7.10.1-cloud-amd64", "linux-image-7.9.12+deb14-cloud-amd64"];
        assert_eq!(newest_first(names.map(str::to_owned).into()), names);
    }

    #[test]
    fn series_have_patterns() {
        let amd64 = |series| pattern(series, Architecture::Amd64);
        assert_eq!(amd64("6.1"), "^linux-image-6[.]1[.][^-]*(-[0-9]+)?-cloud-amd64$");
        assert_eq!(amd64("6.12-rt"), "^linux-image-6[.]12[.][^-]*(-[0-9]+)?-rt-amd64$");
        assert_eq!(amd64("newest"), "^linux-image-[0-9]+[.][^-]*(-[0-9]+)?-cloud-amd64$");
        let large = pattern("6.12-16k", Architecture::Arm64);
        assert_eq!(large, "^linux-image-6[.]12[.][^-]*(-[0-9]+)?-arm64-16k$");
    }
}
