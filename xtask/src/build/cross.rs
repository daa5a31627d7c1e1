//! The tools that compile for another architecture: Debian's, unpacked below `target/cross` and not
//! installed.
//!
//! Owns which packages these are.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    architecture::Architecture,
    build_ebpf, process,
    setup::apt::{self, Installed, Private},
    workspace,
};

/// The standard library of Debian's compiler for BPF; its version must be the compiler's.
const STANDARD_LIBRARY: &str = "libstd-rust-web-dev";
/// Debian's compiler.
const COMPILER: &str = "rustc-web";

/// A linker, a standard library of Rust and a C library for an architecture, with the compiler that
/// they belong to.
pub(crate) struct Cross {
    architecture: Architecture,
    root: PathBuf,
    rustc: PathBuf,
    cargo: PathBuf,
}

impl Cross {
    /// Downloads what is missing.
    pub(crate) fn fetch(architecture: Architecture) -> Result<Self> {
        if !apt::is_here() {
            bail!(
                "building for {} takes Debian's packages, and there is no apt-get here: use a \
                 Debian-based machine",
                architecture.rust()
            );
        }
        let installed = installed_version(COMPILER).with_context(|| {
            format!("building for {} needs the package {COMPILER}", architecture.rust())
        })?;
        let name = format!("{}_{}", architecture.debian(), installed.replace(':', "_"));
        let root = workspace::root().join("target/cross").join(name);
        if !root.is_dir() {
            let suites = suites()?;
            let lists = |of: Architecture| workspace::root().join("target/apt").join(of.debian());
            // The linker runs here, the standard library is for there.
            let host = Architecture::host()?;
            let here = Private::open(&lists(host), &suites, host.debian(), Installed::Here)?;
            let (gcc, libc) = linker_packages(architecture);
            let foreign = architecture.debian();
            let there = Private::open(&lists(architecture), &suites, foreign, Installed::Nothing)?;
            let mut packages: Vec<_> =
                here.needed(&[&gcc, &libc])?.into_iter().map(|name| (&here, name)).collect();
            packages.push((&there, format!("{STANDARD_LIBRARY}={installed}")));
            apt::unpack_all(&packages, &root)?;
        }
        let compiler = build_ebpf::find_compiler().context("no compiler of Debian's is here")?;
        let (rustc, cargo) = compiler.programs();
        Ok(Self { architecture, root, rustc, cargo })
    }

    /// A cargo whose `--target` is this architecture.
    pub(crate) fn cargo(&self) -> Result<Command> {
        let linker = self.linker()?;
        let target = self.architecture.target().replace('-', "_").to_uppercase();
        let mut cargo = workspace::plain_cargo(&self.cargo);
        cargo.env("RUSTC", &self.rustc);
        cargo.env(format!("CARGO_TARGET_{target}_LINKER"), linker);
        // The tools' own libraries.
        let host = Architecture::host()?;
        cargo.env("LD_LIBRARY_PATH", self.root.join("usr/lib").join(host.gnu()));
        Ok(cargo)
    }

    /// Flags of its compiler, beside those of every build.
    pub(crate) fn flags(&self) -> [String; 2] {
        ["--sysroot".to_owned(), self.root.join("usr").to_string_lossy().into_owned()]
    }

    /// The compiler for C starts the linker. Not unpacked if it is installed.
    fn linker(&self) -> Result<PathBuf> {
        let name = format!("{}-gcc", self.architecture.gnu());
        let unpacked = self.root.join("usr/bin").join(&name);
        match unpacked.exists() {
            true => Ok(unpacked),
            false => process::need(&name),
        }
    }
}

/// A compiler for C and its library.
fn linker_packages(architecture: Architecture) -> (String, String) {
    let name = architecture.debian();
    (format!("gcc-{}", architecture.gnu()), format!("libc6-dev-{name}-cross"))
}

/// The suites of this machine's release.
fn suites() -> Result<Vec<String>> {
    let release = apt::release()?;
    Ok(vec![format!("{release}-security"), format!("{release}-updates"), release])
}

fn installed_version(package: &str) -> Option<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Version}", package]);
    process::capture(&mut query).ok().filter(|version| !version.is_empty())
}
