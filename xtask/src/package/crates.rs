//! The crates as a registry of Rust would have them: with the eBPF objects of all architectures,
//! because there the crate is alone, without the kernel side's source and its compiler.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{architecture::Architecture, process, workspace};

/// Where the build script of the crate looks for objects.
const SHIPPED: &str = "latency-user/bpf";

/// The object and its package.
const OBJECT: &str = "latency-ebpf";

/// What the objects are compiled from.
const SOURCES: [&str; 4] = ["latency-ebpf", "latency-common", "latency-user/build", "Cargo.lock"];

/// Licences of the objects.
const LICENCES: [&str; 2] = ["LICENSE-MIT", "LICENSE-GPL2"];

/// Makes both crates in `directory`.
pub(super) fn make(version: &str, directory: &Path) -> Result<Vec<PathBuf>> {
    let shipped = Shipped::compile()?;
    let target = std::path::absolute(directory.join("crates"))?;
    let mut cargo = workspace::cargo();
    // Compiled by whoever tries it: see `install`. The objects are not in the commit.
    cargo.args(["package", "--no-verify", "--allow-dirty", "--locked", "--target-dir"]);
    cargo.arg(&target).args(["--package", "latency-common", "--package", "latency-user"]);
    process::capture(&mut cargo)?;
    drop(shipped);
    let mut made = Vec::new();
    for name in ["latency-common", "latency-user"] {
        let name = format!("{name}-{version}.crate");
        let path = directory.join(&name);
        fs::rename(target.join("package").join(&name), &path)
            .with_context(|| format!("cargo left no {name}"))?;
        made.push(path);
    }
    fs::remove_dir_all(&target)?;
    Ok(made)
}

/// The objects in the crate's directory; removed when dropped, since a checkout compiles its own.
struct Shipped {
    directory: PathBuf,
}

impl Shipped {
    fn compile() -> Result<Self> {
        let shipped = Self { directory: workspace::root().join(SHIPPED) };
        for architecture in Architecture::ALL {
            let object = workspace::build_ebpf_for(architecture)?.join(OBJECT);
            let directory = shipped.directory.join(architecture.rust());
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
            fs::copy(&object, directory.join(OBJECT))
                .with_context(|| format!("cannot copy {}", object.display()))?;
            fs::write(directory.join("sha256"), format!("{}\n", sha256(&object)?))?;
        }
        for licence in LICENCES {
            fs::copy(workspace::root().join(licence), shipped.directory.join(licence))?;
        }
        fs::write(shipped.directory.join("SOURCE"), source()?)?;
        Ok(shipped)
    }
}

impl Drop for Shipped {
    fn drop(&mut self) {
        // Git ignores it, and build scripts in a checkout do.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn sha256(path: &Path) -> Result<String> {
    let line = process::capture(Command::new("sha256sum").arg(path))?;
    Ok(line.split_whitespace().next().context("sha256sum printed nothing")?.to_owned())
}

/// Which sources the objects are compiled from: git's hash of each file.
fn source() -> Result<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(workspace::root()).args(["ls-tree", "-r", "HEAD"]).args(SOURCES);
    let files = process::capture(&mut git).context("the crate names its objects' source")?;
    let command = format!("git ls-tree -r COMMIT {}", SOURCES.join(" "));
    Ok(format!("The objects are compiled from these files, as `{command}` lists them:\n\n{files}"))
}

/// Installs the crates as from a registry: without the repository and the compiler for eBPF. The
/// program must have the object of this checkout.
pub(super) fn install(crates: &[PathBuf]) -> Result<()> {
    // Elsewhere: below the workspace they would be members of it.
    let name = format!("latency-user-crates-{}", std::process::id());
    let directory = env::temp_dir().join(name);
    fs::create_dir(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let outcome = install_in(&directory, crates);
    fs::remove_dir_all(&directory)?;
    outcome
}

fn install_in(directory: &Path, crates: &[PathBuf]) -> Result<()> {
    let mut sources = Vec::new();
    for path in crates {
        process::run(Command::new("tar").arg("-xf").arg(path).arg("-C").arg(directory))?;
        sources.push(directory.join(path.file_stem().context("a crate without a name")?));
    }
    let [common, user] = &sources[..] else { bail!("two crates, not {}", sources.len()) };
    let mut cargo = Command::new("cargo");
    // Not locked: the lock file names a crate of the registry, which the patch replaces.
    cargo.current_dir(directory).args(["install", "--path"]).arg(user);
    cargo.arg("--root").arg(directory).arg("--target-dir").arg(directory.join("target"));
    let common = format!("patch.crates-io.latency-common.path={:?}", common.display());
    process::run(cargo.args(["--config", &common]))?;
    let installed = directory.join("bin/latency-user");
    let version = process::capture(Command::new(&installed).arg("--version"))?;
    let object = workspace::build_ebpf()?.join(OBJECT);
    let hash = sha256(&object)?;
    // As `--version` shows it.
    let shown = &hash[..12];
    if !version.contains(shown) {
        bail!("the installed program has another object than {shown}: {version}");
    }
    Ok(())
}
