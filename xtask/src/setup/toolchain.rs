//! The BPF toolchain: a compiler with a core library for BPF, and a bpf-linker with its LLVM.
//!
//! Owns where either can come from and in which order that is tried. Detection is `build_ebpf`'s.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::apt;
use crate::{build_ebpf, process, workspace};

/// Debian's compiler with a ready-made core library for BPF.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
const LINKER_VERSION: &str = "0.13.0";

pub(crate) fn ensure() -> Result<()> {
    let llvm = ensure_compiler()?;
    ensure_linker(llvm)
}

/// Returns the compiler's LLVM major version, if it tells.
fn ensure_compiler() -> Result<Option<u32>> {
    if let Some(compiler) = build_ebpf::find_compiler() {
        return Ok(compiler.llvm);
    }
    process::step("no compiler here has a core library for BPF");
    if apt::is_here() && !apt::offers(&DEBIAN_COMPILER) {
        // A fresh machine's lists are empty or too old to know the packages.
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
            "cannot get a compiler for BPF: apt offers no {}, and rustup is missing; install \
             rustup, then run `cargo xtask setup` again",
            DEBIAN_COMPILER.join(", ")
        );
    }
    let compiler = build_ebpf::find_compiler()
        .context("installed a compiler for BPF, but it is not found: check PATH")?;
    Ok(compiler.llvm)
}

/// Installs bpf-linker unless the one here uses the compiler's LLVM, as far as both tell.
fn ensure_linker(llvm: Option<u32>) -> Result<()> {
    match build_ebpf::find_linker().map(|linker| linker.llvm) {
        Some(found) if found.is_none() || llvm.is_none() || found == llvm => return Ok(()),
        Some(_) => process::step("bpf-linker is here, but with another LLVM than the compiler's"),
        None => process::step("bpf-linker is missing"),
    }
    let llvm =
        llvm.context("rustc -vV names no LLVM version: install a bpf-linker that fits it")?;

    let development = [
        format!("llvm-{llvm}-dev"),
        // llvm-config names these among the libraries to link, though bpf-linker uses none.
        format!("libpolly-{llvm}-dev"),
        "zlib1g-dev".to_owned(),
        "libzstd-dev".to_owned(),
    ];
    let absent: Vec<_> =
        development.iter().map(String::as_str).filter(|name| !is_installed(name)).collect();
    if apt::is_here() {
        apt::install(&absent)?;
    } else if build_ebpf::find_program(&format!("llvm-config-{llvm}")).is_none()
        && build_ebpf::find_program("llvm-config").is_none()
    {
        bail!("bpf-linker needs LLVM {llvm} with its headers: install them, or bpf-linker itself");
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
    process::run(&mut install).context(
        "cannot build bpf-linker: a released one from its project page, put on PATH, does as well",
    )
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${db:Status-Status}", package]).stderr(Stdio::null());
    query.output().is_ok_and(|output| output.stdout == b"installed")
}
