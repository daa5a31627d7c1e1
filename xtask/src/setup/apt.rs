//! The Debian package manager: queries, installs, and unpacks packages without installing them.
//!
//! Owns every call of apt. Callers decide which packages they need.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, bail};

use crate::{build_ebpf, process};

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
    let policy = apt_cache(&["policy", package]).ok()?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:"))?.trim();
    (version != "(none)").then(|| version.to_owned())
}

/// Dependencies of `package` in their order, including alternatives.
pub(crate) fn depends(package: &str) -> Result<Vec<String>> {
    let lines = apt_cache(&["depends", package])?;
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

/// The machine's suite with its backports, in directories of our own: the machine's sources stay as
/// they are.
pub(crate) struct Backports {
    config: PathBuf,
    suite: String,
}

impl Backports {
    /// Reads the package lists into `directory`, at most once per process.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        static READ: AtomicBool = AtomicBool::new(false);
        let os = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
        let codename = os.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let codename = codename.context("/etc/os-release has no VERSION_CODENAME")?.trim();
        let sources = directory.join("sources");
        for part in ["sources", "lists/partial", "cache/archives/partial"] {
            let part = directory.join(part);
            fs::create_dir_all(&part)
                .with_context(|| format!("cannot create {}", part.display()))?;
        }
        let list = archive_of(codename).with_context(|| {
            format!("no source in /etc/apt/sources.list.d has the suite {codename}")
        })?;
        fs::write(sources.join("backports.sources"), list)?;
        let config = directory.join("apt.conf");
        let path = |name: &str| std::path::absolute(directory.join(name));
        let text = format!(
            "Dir::Etc::SourceList \"/dev/null\";\nDir::Etc::SourceParts \"{}\";\n\
             Dir::State::Lists \"{}\";\nDir::Cache \"{}\";\n",
            path("sources")?.display(),
            path("lists")?.display(),
            path("cache")?.display(),
        );
        fs::write(&config, text)?;
        let backports =
            Self { config: std::path::absolute(config)?, suite: format!("{codename}-backports") };
        if !READ.swap(true, Ordering::Relaxed) {
            process::capture(backports.apt_get().args(["update", "--quiet"]))
                .context("cannot read the package lists of the backports")?;
        }
        Ok(backports)
    }

    /// The packages that `package` of the backports needs and the machine lacks, itself included,
    /// as `NAME=VERSION`.
    pub(crate) fn needed(&self, package: &str) -> Result<Vec<String>> {
        let mut simulate = self.apt_get();
        simulate.args(["install", "--simulate", "--no-install-recommends", "--target-release"]);
        let plan = process::capture(simulate.arg(&self.suite).arg(package))?;
        Ok(installed_by(&plan))
    }

    /// As [`unpack`].
    pub(crate) fn unpack(&self, package: &str, directory: &Path) -> Result<()> {
        unpack_by(self.apt_get(), package, directory)
    }

    fn apt_get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C");
        // As root, apt would otherwise change to a user that may not read these directories.
        command.args(["--option", "APT::Sandbox::User=root"]);
        command
    }
}

/// The source that has the suite `codename`, with its backports added.
fn archive_of(codename: &str) -> Option<String> {
    let entries = fs::read_dir("/etc/apt/sources.list.d").ok()?;
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let sources = files.filter(|path| path.extension().is_some_and(|name| name == "sources"));
    let mut texts = sources.filter_map(|path| fs::read_to_string(path).ok());
    texts.find_map(|text| with_backports(&text, codename))
}

/// The paragraph of `sources` (deb822) that has the suite `codename`, with its backports instead of
/// its other suites.
fn with_backports(sources: &str, codename: &str) -> Option<String> {
    let suites = |paragraph: &str| {
        let line = paragraph.lines().find_map(|line| line.strip_prefix("Suites:"));
        line.is_some_and(|line| line.split_whitespace().any(|suite| suite == codename))
    };
    let paragraph = sources.split("\n\n").find(|paragraph| suites(paragraph))?;
    let lines = paragraph.lines().map(|line| match line.starts_with("Suites:") {
        true => format!("Suites: {codename} {codename}-backports\n"),
        false => format!("{line}\n"),
    });
    Some(lines.collect())
}

/// The packages of a simulated installation: `Inst NAME [OLD] (NEW ...`.
fn installed_by(plan: &str) -> Vec<String> {
    let lines = plan.lines().filter_map(|line| line.strip_prefix("Inst "));
    lines
        .filter_map(|line| {
            let name = line.split_whitespace().next()?;
            let version = line.split_once('(')?.1.split_whitespace().next()?;
            Some(format!("{name}={version}"))
        })
        .collect()
}

fn apt_cache(args: &[&str]) -> Result<String> {
    process::capture(Command::new("apt-cache").env("LC_ALL", "C").args(args))
}

fn apt_get() -> Result<Command> {
    // `env`, because sudo does not pass the variable on.
    let mut command = process::as_root("env")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    // Another apt may be running (unattended upgrades): wait instead of failing.
    command.args(["--option", "DPkg::Lock::Timeout=300"]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backports_replace_the_other_suites() {
        let sources = "Types: deb\nURIs: http://a\nSuites: x-security\n\n\
                       Types: deb\nURIs: http://b\nSuites: x x-updates\nComponents: main\n";
        assert_eq!(
            with_backports(sources, "x").as_deref(),
            Some("Types: deb\nURIs: http://b\nSuites: x x-backports\nComponents: main\n")
        );
        assert_eq!(with_backports(sources, "y"), None);
    }

    #[test]
    fn packages_of_a_plan_have_their_new_versions() {
        let plan = "Reading...\nInst a [1:7.2] (1:10.0+b1 Debian [amd64]) []\nInst b (2 x [all])\n\
                    Conf a (1:10.0+b1 Debian [amd64])\n";
        assert_eq!(installed_by(plan), ["a=1:10.0+b1", "b=2"]);
    }
}
