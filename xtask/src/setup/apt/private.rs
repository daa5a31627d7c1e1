//! Packages of other releases or architectures than the machine's, by package lists in a directory
//! of our own: the machine's sources and packages stay as they are.
//!
//! Owns those sources: the machine's own mirrors with other suites.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{candidate_by, depends_by, unpack_by};
use crate::{process, setup::folder};

/// Lists that are younger are not read again, unless a package cannot be had by them.
const FRESH: Duration = Duration::from_secs(12 * 3600);

/// What has been installed, from where plans of installations start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Installed {
    /// The packages of this machine.
    Here,
    /// Nothing: plans contain everything that a package needs.
    Nothing,
}

/// Package lists of some suites.
pub(crate) struct Private {
    directory: PathBuf,
    suites: Vec<String>,
    /// Whether this process has read the lists.
    is_read: Cell<bool>,
}

impl Private {
    /// Lists of `suites`, the preferred one last, in `directory`; read if they are not fresh.
    /// Debian's names of architectures: `amd64`.
    pub(crate) fn open(
        directory: &Path,
        suites: &[String],
        architecture: &str,
        installed: Installed,
    ) -> Result<Self> {
        let directory = std::path::absolute(directory)?;
        let private = Self { directory, suites: suites.to_vec(), is_read: Cell::new(false) };
        let directory = &private.directory;
        let sources = directory.join("sources");
        for part in ["sources", "lists/partial", "cache/archives/partial"] {
            let part = directory.join(part);
            fs::create_dir_all(&part)
                .with_context(|| format!("cannot create {}", part.display()))?;
        }
        fs::write(sources.join("suites.sources"), sources_of(suites)?)?;
        let mut config = format!(
            "Dir::Etc::SourceList \"/dev/null\";\nDir::Etc::SourceParts \"{}\";\n\
             Dir::State::Lists \"{}\";\nDir::Cache \"{}\";\nAPT::Architectures \"{architecture}\";\n",
            sources.display(),
            directory.join("lists").display(),
            directory.join("cache").display(),
        );
        if installed == Installed::Nothing {
            let status = directory.join("status");
            fs::write(&status, "")?;
            config.push_str(&format!(
                "Dir::State::Status \"{}\";\nAPT::Architecture \"{architecture}\";\n",
                status.display()
            ));
        }
        fs::write(private.config(), config)?;
        if !private.is_fresh() {
            private.update()?;
        }
        Ok(private)
    }

    fn config(&self) -> PathBuf {
        self.directory.join("apt.conf")
    }

    /// Its time is that of the last update.
    fn stamp(&self) -> PathBuf {
        self.directory.join("updated")
    }

    fn is_fresh(&self) -> bool {
        let changed = fs::metadata(self.stamp()).and_then(|metadata| metadata.modified());
        changed.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FRESH))
    }

    /// Reads the lists, at most once per process.
    fn update(&self) -> Result<()> {
        if self.is_read.replace(true) {
            return Ok(());
        }
        let suites = self.suites.join(" ");
        process::step(&format!("reading the package lists of {suites}"));
        process::capture(self.apt_get().args(["update", "--quiet"]))
            .with_context(|| format!("cannot read the package lists of {suites}"))?;
        Ok(fs::write(self.stamp(), "")?)
    }

    /// The version that apt would install.
    pub(crate) fn candidate(&self, package: &str) -> Option<String> {
        candidate_by(self.apt_cache(), package)
    }

    /// Names of packages that match a regular expression of apt.
    pub(crate) fn names(&self, pattern: &str) -> Result<Vec<String>> {
        let mut search = self.apt_cache();
        let lines = process::capture(search.args(["search", "--names-only", pattern]))?;
        let names = lines.lines().filter_map(|line| line.split_whitespace().next());
        Ok(names.map(str::to_owned).collect())
    }

    /// Dependencies of `package` in their order, including alternatives.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<String>> {
        depends_by(self.apt_cache(), package)
    }

    /// `packages` and everything that they need beyond what is installed, as `NAME=VERSION`.
    pub(crate) fn needed(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut simulate = self.apt_get();
        simulate.args(["install", "--simulate", "--no-install-recommends", "--target-release"]);
        let target = self.suites.last().context("no suite to read")?;
        let plan = process::capture(simulate.arg(target).args(packages))?;
        Ok(installed_by(&plan))
    }

    /// As [`unpack`](super::unpack).
    pub(crate) fn unpack(&self, package: &str, directory: &Path) -> Result<()> {
        match unpack_by(self.apt_get(), package, directory) {
            // The lists may be outdated.
            Err(_) if !self.is_read.get() => {
                self.update()?;
                unpack_by(self.apt_get(), package, directory)
            }
            outcome => outcome,
        }
    }

    /// As [`unpack_all`].
    pub(crate) fn unpack_all(&self, packages: &[String], directory: &Path) -> Result<()> {
        let packages: Vec<_> = packages.iter().map(|package| (self, package.clone())).collect();
        unpack_all(&packages, directory)
    }

    fn apt_get(&self) -> Command {
        let mut command = self.command("apt-get");
        // As root, apt would otherwise change to a user that may not read these directories.
        command.args(["--option", "APT::Sandbox::User=root"]);
        command
    }

    fn apt_cache(&self) -> Command {
        self.command("apt-cache")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.config()).env("LC_ALL", "C");
        command
    }
}

/// Unpacks packages, each of its own lists, into `directory`, which is complete if it exists.
pub(crate) fn unpack_all(packages: &[(&Private, String)], directory: &Path) -> Result<()> {
    folder::complete(directory, |partial| {
        packages.iter().try_for_each(|(lists, package)| lists.unpack(package, partial))
    })
}

/// The machine's release, `bookworm`.
pub(crate) fn release() -> Result<String> {
    let os = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = os.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(codename.context("/etc/os-release has no VERSION_CODENAME")?.trim().to_owned())
}

/// Sources with `suites`, from the machine's own mirrors.
pub(crate) fn sources_of(suites: &[String]) -> Result<String> {
    let release = release()?;
    let entries = fs::read_dir("/etc/apt/sources.list.d").context("list apt's sources")?;
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let sources = files.filter(|path| path.extension().is_some_and(|name| name == "sources"));
    let text: Vec<_> = sources.filter_map(|path| fs::read_to_string(path).ok()).collect();
    with_suites(&text.join("\n\n"), &release, suites).with_context(|| {
        format!("no source in /etc/apt/sources.list.d has {release} as {}", suites.join(" "))
    })
}

/// The paragraphs of `sources` (deb822) that have the suites of `release`, with `suites` instead.
/// Suites of security updates are on a mirror of their own.
fn with_suites(sources: &str, release: &str, suites: &[String]) -> Option<String> {
    let (security, main): (Vec<&String>, Vec<_>) =
        suites.iter().partition(|suite| suite.ends_with("-security"));
    let mut text = String::new();
    for (suites, has) in [(main, release.to_owned()), (security, format!("{release}-security"))] {
        if !suites.is_empty() {
            let paragraph = paragraph_with(sources, &has)?;
            let names: Vec<_> = suites.into_iter().map(String::as_str).collect();
            for line in paragraph.lines() {
                match line.starts_with("Suites:") {
                    true => text.push_str(&format!("Suites: {}\n", names.join(" "))),
                    false => text.push_str(&format!("{line}\n")),
                }
            }
            text.push('\n');
        }
    }
    Some(text)
}

fn paragraph_with<'a>(sources: &'a str, suite: &str) -> Option<&'a str> {
    let has = |paragraph: &&str| {
        let line = paragraph.lines().find_map(|line| line.strip_prefix("Suites:"));
        line.is_some_and(|line| line.split_whitespace().any(|name| name == suite))
    };
    sources.split("\n\n").find(has)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_suites_replace_those_of_the_same_mirror() {
        let sources = "Types: deb\nURIs: http://a\nSuites: x-security\n\n\
                       Types: deb\nURIs: http://b\nSuites: x x-updates\nComponents: main\n";
        let suites =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            with_suites(sources, "x", &suites(&["x", "x-backports"])).as_deref(),
            Some("Types: deb\nURIs: http://b\nSuites: x x-backports\nComponents: main\n\n")
        );
        let both = with_suites(sources, "x", &suites(&["y", "y-security"])).unwrap();
        assert!(both.contains("http://b\nSuites: y\n"), "{both}");
        assert!(both.contains("http://a\nSuites: y-security\n"), "{both}");
        assert_eq!(with_suites(sources, "y", &suites(&["y"])), None);
    }

    #[test]
    fn packages_of_a_plan_have_their_new_versions() {
        let plan = "Reading...\nInst a [1:7.2] (1:10.0+b1 Debian [amd64]) []\nInst b (2 x [all])\n\
                    Conf a (1:10.0+b1 Debian [amd64])\n";
        assert_eq!(installed_by(plan), ["a=1:10.0+b1", "b=2"]);
    }
}
