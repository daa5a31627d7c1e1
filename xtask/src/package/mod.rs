//! `cargo xtask package`: Debian and RPM packages, an archive and a container image of the static
//! program, and the crates, below `target/dist`.
//!
//! `tree` has the files, `deb`, `rpm`, `image` and `crates` the formats, `install` tries the Debian
//! package. Built twice, a package has the same
//! bytes: times are those of the commit, owners are root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::{
    architecture::Architecture,
    build, build_ebpf, process,
    setup::{self, apt},
    workspace,
};

mod crates;
mod deb;
mod image;
mod install;
mod rpm;
mod tree;

use tree::Tree;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Machines to package for, as cargo names them [default: this one]
    #[arg(long, value_name = "TARGET", value_parser = Architecture::of_target)]
    target: Option<Architecture>,
    /// Build everything twice, and fail if the bytes differ; install the crates
    #[arg(long)]
    check: bool,
    /// Install, use, upgrade, remove and purge the Debian package in virtual machines with Debian
    /// 12 and 13
    #[arg(long, conflicts_with = "target")]
    install: bool,
}

/// What all formats say about the program.
struct About {
    version: String,
    architecture: Architecture,
    /// Who answers for the package: who made the commit.
    maintainer: String,
    /// Time of the commit, seconds since the epoch: of every file.
    time: u64,
}

const SUMMARY: &str = "finder of softirq stalls in the Linux network path";
/// In lines of a package's description.
const DESCRIPTION: [&str; 4] = [
    "Times net_rx_action, NAPI polls, hard-IRQ handlers and tcp_collapse in the",
    "kernel, keeps histograms per CPU and NIC queue, names the culprit of each",
    "stall, walks through triage, and proves by controlled re-measurement that a",
    "change helped.",
];

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(setup::Level::Build)?;
    if build_ebpf::find_program("rpmbuild").is_none() {
        apt::install(&["rpm"])?;
    }
    let architecture = args.target.map_or_else(Architecture::host, Ok)?;
    let about = About {
        version: version()?,
        architecture,
        maintainer: commit("%an <%ae>")?,
        time: commit("%ct")?.parse().context("the time of a commit")?,
    };
    let program = build::latency_user(architecture)?;
    // Pages and completions are the same everywhere: the host's programs write them.
    let documents = build::release_binary(workspace::TESTS_PACKAGE, "write-man-pages")?;
    let completer = match architecture.is_host() {
        true => program.clone(),
        false => build::latency_user(Architecture::host()?)?,
    };
    let tree = Tree::collect(&program, &documents, &completer)?;
    let dist = workspace::root().join("target/dist");
    let made = make(&about, &tree, &dist)?;
    if args.check {
        let again = make(&about, &tree, &dist.join("again"))?;
        for (first, second) in made.iter().zip(&again) {
            if fs::read(first)? != fs::read(second)? {
                bail!("{} has other bytes the second time", first.display());
            }
        }
        fs::remove_dir_all(dist.join("again"))?;
        let is_crate = |path: &&PathBuf| path.extension().is_some_and(|name| name == "crate");
        let crates: Vec<_> = made.iter().filter(is_crate).cloned().collect();
        crates::install(&crates)?;
    }
    for file in &made {
        println!("{}", file.display());
    }
    if let (true, Some(package)) = (args.install, made.first()) {
        return install::try_out(&about, &tree, package);
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes all formats in `directory` and returns the files, with one of checksums.
fn make(about: &About, tree: &Tree, directory: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let mut made = vec![
        deb::make(about, tree, directory)?,
        rpm::make(about, tree, directory)?,
        archive(about, tree, directory)?,
        image::make(about, tree, directory)?,
    ];
    made.extend(crates::make(&about.version, directory)?);
    let mut sums = Command::new("sha256sum");
    sums.current_dir(directory);
    for file in &made {
        sums.arg(file.file_name().context("a file without a name")?);
    }
    let name = format!("latency-user-{}-{}.sha256", about.version, about.architecture.rust());
    let path = directory.join(name);
    fs::write(&path, process::capture(&mut sums)?)?;
    made.push(path);
    Ok(made)
}

/// A compressed archive whose only directory has the name of the version.
fn archive(about: &About, tree: &Tree, directory: &Path) -> Result<PathBuf> {
    let name = format!("latency-user-{}-{}", about.version, about.architecture.rust());
    let staging = directory.join("archive");
    tree.write_flat(&staging.join(&name), about.time)?;
    let path = directory.join(format!("{name}.tar.gz"));
    tar(&staging, about.time, &["--use-compress-program=gzip -9n"], &path)?;
    fs::remove_dir_all(&staging)?;
    Ok(path)
}

/// Archives the contents of a directory in a stable order, owned by root.
fn tar(directory: &Path, time: u64, more: &[&str], output: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.env("LC_ALL", "C");
    tar.args(["--create", "--sort=name", "--format=gnu", "--owner=root:0", "--group=root:0"]);
    tar.args(["--numeric-owner", &format!("--mtime=@{time}")]).args(more);
    tar.arg("--file").arg(output).arg("--directory").arg(directory);
    let mut names: Vec<_> = directory
        .read_dir()?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<std::io::Result<_>>()?;
    names.sort();
    process::run(tar.args(names))
}

/// The workspace's version.
fn version() -> Result<String> {
    let manifest = fs::read_to_string(workspace::root().join("Cargo.toml"))?;
    let (_, package) = manifest.split_once("[workspace.package]").context("no version")?;
    let line = package.lines().find_map(|line| line.strip_prefix("version = "));
    Ok(line.context("Cargo.toml has no version")?.trim_matches('"').to_owned())
}

/// What git says of the commit that is checked out.
fn commit(format: &str) -> Result<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(workspace::root()).args(["log", "-1", &format!("--format={format}")]);
    let text =
        process::capture(&mut git).context("packages name their commit's time and author")?;
    Ok(text.trim().to_owned())
}
