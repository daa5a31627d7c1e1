//! Compiles the eBPF object, which the loader embeds in the binary, or takes the one that came with
//! the crate. Passes the object's hash and the commit to `--version`.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest, Sha256};

#[path = "build/ebpf.rs"]
mod ebpf;

const PACKAGE: &str = "latency-ebpf";

/// Where a crate that was published has its objects: `cargo xtask package` compiles them, for each
/// architecture, beside the SHA-256 of each.
const SHIPPED: &str = "bpf";

/// Digits of hashes that are shown.
const DIGITS: usize = 12;

fn main() -> Result<(), Box<dyn Error>> {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = crate_root.join("..");
    for source in [
        "latency-ebpf",
        "latency-common",
        "latency-user/src",
        "latency-user/build",
        "latency-user/build.rs",
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
    let object = match workspace.join(PACKAGE).is_dir() {
        true => {
            let objects = ebpf::build(&workspace, &[PACKAGE], &architecture)?;
            fs::read(objects.join(PACKAGE))?
        }
        false => shipped(&crate_root.join(SHIPPED).join(&architecture))?,
    };
    fs::write(Path::new(&env::var("OUT_DIR")?).join(PACKAGE), &object)?;

    let hash = format!("{:x}", Sha256::digest(&object));
    let commit = commit(&workspace).map(|commit| format!("commit {commit}, ")).unwrap_or_default();
    let build = format!(" ({commit}eBPF object {})", &hash[..DIGITS]);
    println!("cargo::rustc-env=LATENCY_USER_BUILD={build}");
    Ok(())
}

/// The object in `directory`, as it was when it was compiled.
fn shipped(directory: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let read = |path: PathBuf| {
        fs::read(&path).map_err(|error| {
            format!(
                "{}: {error}: this crate has no eBPF object for this machine; build it in a \
                 checkout of its repository",
                path.display()
            )
        })
    };
    let object = read(directory.join(PACKAGE))?;
    let expected = String::from_utf8(read(directory.join("sha256"))?)?;
    let found = format!("{:x}", Sha256::digest(&object));
    if found != expected.trim() {
        return Err(format!(
            "{} was changed after it was compiled: its SHA-256 is {found}, not {expected}",
            directory.join(PACKAGE).display()
        )
        .into());
    }
    Ok(object)
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
