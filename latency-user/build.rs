//! Compiles the eBPF object, which the loader embeds in the binary. Passes the object's hash and
//! the commit to `--version`.

use std::{env, error::Error, fs, path::Path, process::Command};

use sha2::{Digest, Sha256};

#[path = "../xtask/src/build_ebpf.rs"]
mod build_ebpf;

const PACKAGE: &str = "latency-ebpf";

/// Digits of hashes that are shown.
const DIGITS: usize = 12;

fn main() -> Result<(), Box<dyn Error>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for source in [
        "latency-ebpf",
        "latency-common",
        "latency-user/src",
        "xtask/src/build_ebpf.rs",
        "Cargo.lock",
        ".git/logs/HEAD",
    ] {
        let source = workspace.join(source);
        if source.exists() {
            println!("cargo::rerun-if-changed={}", source.display());
        }
    }
    // Of the machine that latency-user is built for, which another may compile it on.
    let architecture = env::var("CARGO_CFG_TARGET_ARCH")?;
    let objects = build_ebpf::build(&workspace, &[PACKAGE], &architecture)?;
    let object = fs::read(objects.join(PACKAGE))?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join(PACKAGE), &object)?;

    let hash = format!("{:x}", Sha256::digest(&object));
    let commit = commit(&workspace).map(|commit| format!("commit {commit}, ")).unwrap_or_default();
    let build = format!(" ({commit}eBPF object {})", &hash[..DIGITS]);
    println!("cargo::rustc-env=LATENCY_USER_BUILD={build}");
    Ok(())
}

/// The commit that is checked out, followed by `+` if tracked files differ from it; `None`: this is
/// not a checkout.
fn commit(workspace: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(workspace).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    // An unpacked source archive may be inside the checkout of another project.
    workspace.join(".git").exists().then_some(())?;
    let commit = git(&["rev-parse", &format!("--short={DIGITS}"), "HEAD"])?;
    let is_changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if is_changed { commit + "+" } else { commit })
}
