//! Installs the BPF toolchain: a compiler with a core library for BPF, and a bpf-linker with the
//! same LLVM.
//!
//! Owns the sources of both and the order in which they are tried. `build_ebpf` detects them.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::apt;
use crate::{build_ebpf, process, workspace};

/// Debian's compiler with a prebuilt core library for BPF.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
const LINKER_VERSION: &str = "0.13.0";

pub(crate) fn ensure() -> Result<()> {
    let llvm = ensure_compiler()?;
    ensure_linker(llvm)
}

/// Returns the compiler's LLVM major version, if known.
fn ensure_compiler() -> Result<Option<u32>> {
    if let Some(compiler) = build_ebpf::find_compiler() {
        return Ok(compiler.llvm);
    }
    process::step("no compiler with a core library for BPF found");
    if apt::is_here() && !apt::offers(&DEBIAN_COMPILER) {
        // The package lists of a fresh machine may be empty or outdated.
        apt::update()?;
    }
    if apt::offers(&DEBIAN_COMPILER) {
        apt::install(&DEBIAN_COMPILER)?;
    } else if build_ebpf::find_program("rustup").is_some() {
        process::step("rustup toolchain install nightly, with rust-src");
        let mut install = Command::new("rustup");
        install.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
        process::run(install.args(["--component", "rust-src"]))?;
    } else {
        bail!(
            "cannot install a compiler for BPF: apt has no {}, and rustup is missing; install \
             rustup, then run `cargo xtask setup` again",
            DEBIAN_COMPILER.join(", ")
        );
    }
    let compiler = build_ebpf::find_compiler()
        .context("installed a compiler for BPF, but it is not found: check PATH")?;
    Ok(compiler.llvm)
}

/// Installs bpf-linker, unless the installed one uses the compiler's LLVM. An unknown version
/// counts as equal.
fn ensure_linker(llvm: Option<u32>) -> Result<()> {
    match build_ebpf::find_linker().map(|linker| linker.llvm) {
        Some(found) if found.is_none() || llvm.is_none() || found == llvm => return Ok(()),
        Some(_) => {
            process::step("bpf-linker is installed, but its LLVM differs from the compiler's")
        }
        None => process::step("bpf-linker is missing"),
    }
    let llvm = llvm.context("rustc -vV reports no LLVM version: install a matching bpf-linker")?;

    let packages = [
        format!("llvm-{llvm}-dev"),
        // llvm-config lists it among the libraries to link, though bpf-linker does not use it.
        format!("libpolly-{llvm}-dev"),
        "zlib1g-dev".to_owned(),
        "libzstd-dev".to_owned(),
    ];
    let missing: Vec<_> =
        packages.iter().map(String::as_str).filter(|name| !is_installed(name)).collect();
    if apt::is_here() {
        apt::install(&missing)?;
    } else if build_ebpf::find_program(&format!("llvm-config-{llvm}")).is_none()
        && build_ebpf::find_program("llvm-config").is_none()
    {
        bail!("bpf-linker needs LLVM {llvm} with its headers: install these, or bpf-linker itself");
    }

    process::step(&format!("cargo install bpf-linker {LINKER_VERSION} (about two minutes)"));
    let mut install = workspace::cargo();
    install.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"]);
    install.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
    let prefix = format!("/usr/lib/llvm-{llvm}");
    if apt::is_here() {
        // bpf-linker's build script reads the first, llvm-sys the second.
        install.env("LLVM_PREFIX", &prefix).env(format!("LLVM_SYS_{llvm}1_PREFIX"), &prefix);
    }
    process::run(&mut install)
        .context("cannot build bpf-linker: alternatively put a released binary of it on PATH")
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${db:Status-Status}", package]).stderr(Stdio::null());
    query.output().is_ok_and(|output| output.stdout == b"installed")
}
