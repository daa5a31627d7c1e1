//! Compiles the eBPF crates: finds a compiler with a core library for BPF and a bpf-linker of
//! the same LLVM, and runs cargo with them.
//!
//! Owns the knowledge of what such a build needs. Installs nothing: that is `cargo xtask setup`,
//! which every error here names. Standard library only and no other module of xtask, because
//! latency-user's build script includes this very file.

use std::{
    env,
    error::Error,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Why the eBPF programs could not be built, with the command that helps.
#[derive(Debug)]
pub(crate) struct BuildError(String);

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for BuildError {}

/// Where the core library for the BPF target comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Core {
    /// Shipped with the compiler, as Debian's packages do it.
    Prebuilt,
    /// Compiled from rust-src; only nightly can.
    BuildStd,
}

/// A rustc that can compile for BPF, and the cargo that belongs to it.
pub(crate) struct Compiler {
    rustc: PathBuf,
    cargo: PathBuf,
    core: Core,
    /// Major version of the LLVM inside; `None` if `rustc -vV` names none.
    pub(crate) llvm: Option<u32>,
}

/// The linker that turns LLVM bitcode into a BPF object.
pub(crate) struct Linker {
    path: PathBuf,
    /// Major version of the LLVM it loads; `None` where that cannot be seen (static builds).
    pub(crate) llvm: Option<u32>,
}

const TARGET_DIRECTORY: &str = "target/bpf";

/// Builds the binaries of `packages` and returns the directory that holds them, one object a
/// package and named like it.
///
/// The target directory is `target/bpf`, apart from the workspace's own: a build script that
/// calls this runs while the outer cargo holds the lock on the latter.
pub(crate) fn build(workspace: &Path, packages: &[&str]) -> Result<PathBuf, BuildError> {
    let compiler = find_compiler().ok_or_else(|| {
        BuildError(
            "no rustc with a core library for BPF: run `cargo xtask setup` to install one".into(),
        )
    })?;
    let linker = find_linker().ok_or_else(|| {
        BuildError("bpf-linker not found: run `cargo xtask setup` to install it".into())
    })?;
    check_llvm(&compiler, &linker)?;

    let target = target();
    let target_dir = workspace.join(TARGET_DIRECTORY);
    let mut cargo = Command::new(&compiler.cargo);
    clean_environment(&mut cargo);
    cargo.current_dir(workspace).env("RUSTC", &compiler.rustc);
    // Encoded, so that a path with a space in it stays one argument.
    let linker_flag = format!("linker={}", linker.path.display());
    let flags = ["-C", &linker_flag, "-C", "debuginfo=2", "-C", "link-arg=--btf"];
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    cargo.args(["build", "--release", "--target", target, "--target-dir"]).arg(&target_dir);
    for package in packages {
        cargo.args(["--package", package]);
    }
    match compiler.core {
        // aya-ebpf uses inline assembly for BPF, which stable refuses.
        Core::Prebuilt => cargo.env("RUSTC_BOOTSTRAP", "1"),
        Core::BuildStd => cargo.args(["-Z", "build-std=core"]),
    };
    // Standard output belongs to the caller: to a build script's caller it means directives.
    cargo.stdin(Stdio::null()).stdout(Stdio::null());

    let status = cargo
        .status()
        .map_err(|error| BuildError(format!("{}: {error}", compiler.cargo.display())))?;
    if !status.success() {
        return Err(BuildError(format!(
            "compiling {} for {target} failed ({status}): the compiler's words stand above; if \
             they are about the toolchain, run `cargo xtask setup`",
            packages.join(", ")
        )));
    }
    Ok(objects(workspace))
}

/// The directory of the objects that [`build`] makes.
pub(crate) fn objects(workspace: &Path) -> PathBuf {
    workspace.join(TARGET_DIRECTORY).join(target()).join("release")
}

/// A compiler that can build for BPF now, ready-made core library first.
pub(crate) fn find_compiler() -> Option<Compiler> {
    let on_path = find_program("rustc");
    let debian = Some(PathBuf::from("/usr/bin/rustc"));
    for rustc in [on_path, debian].into_iter().flatten() {
        let cargo = rustc.with_file_name("cargo");
        if cargo.is_file() && has_prebuilt_core(&rustc) {
            let llvm = rustc_llvm(&rustc);
            return Some(Compiler { rustc, cargo, core: Core::Prebuilt, llvm });
        }
    }
    let rustc = PathBuf::from(output("rustup", ["which", "--toolchain", "nightly", "rustc"])?);
    let source = Path::new(&sysroot(&rustc)?).join("lib/rustlib/src/rust/library/core");
    let llvm = rustc_llvm(&rustc);
    let cargo = rustc.with_file_name("cargo");
    source.is_dir().then_some(Compiler { rustc, cargo, core: Core::BuildStd, llvm })
}

/// The bpf-linker on PATH or where `cargo install` puts it.
pub(crate) fn find_linker() -> Option<Linker> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let installed =
        cargo_home.map(|home| home.join("bin/bpf-linker")).filter(|path| path.is_file());
    let path = find_program("bpf-linker").or(installed)?;
    // `bpf-linker --version` tells its own version alone, so the loader is asked instead.
    let libraries = output("ldd", [&path]).unwrap_or_default();
    let llvm = libraries.split("libLLVM").nth(1).and_then(first_number);
    Some(Linker { path, llvm })
}

/// The program's path, searched as a shell would and then where root's tools live, which an
/// ordinary user's PATH often lacks.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Bitcode of a newer LLVM does not read in an older one, and the message then is obscure.
fn check_llvm(compiler: &Compiler, linker: &Linker) -> Result<(), BuildError> {
    match (compiler.llvm, linker.llvm) {
        (Some(rustc), Some(bpf_linker)) if rustc != bpf_linker => Err(BuildError(format!(
            "{} uses LLVM {rustc} but {} uses LLVM {bpf_linker}: they must be equal; \
             `cargo xtask setup` builds a bpf-linker that fits",
            compiler.rustc.display(),
            linker.path.display()
        ))),
        _ => Ok(()),
    }
}

/// BPF of the byte order of the machine that will run the programs: in a build script that is
/// the one cargo compiles for.
fn target() -> &'static str {
    let big = match env::var("CARGO_CFG_TARGET_ENDIAN") {
        Ok(endian) => endian == "big",
        Err(_) => cfg!(target_endian = "big"),
    };
    if big { "bpfeb-unknown-none" } else { "bpfel-unknown-none" }
}

fn has_prebuilt_core(rustc: &Path) -> bool {
    let Some(sysroot) = sysroot(rustc) else { return false };
    let libraries = Path::new(&sysroot).join("lib/rustlib").join(target()).join("lib");
    libraries.read_dir().is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.starts_with("libcore-") && name.ends_with(".rlib")
            })
        })
    })
}

fn sysroot(rustc: &Path) -> Option<String> {
    output(rustc, ["--print", "sysroot"])
}

fn rustc_llvm(rustc: &Path) -> Option<u32> {
    first_number(output(rustc, ["-vV"])?.split("LLVM version:").nth(1)?)
}

/// The first run of digits: 22 in `.so.22.1 => ...`, `-22.so` and ` 22.1.2`.
fn first_number(text: &str) -> Option<u32> {
    let from_digit = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    from_digit.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Trimmed standard output, or `None` if the program is absent or fails.
fn output<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = S>,
) -> Option<String> {
    let mut command = Command::new(program);
    clean_environment(&mut command);
    let output = command.args(args).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Takes out what an outer cargo or rustup sets: it speaks of the host's build and would choose
/// another compiler, other flags or a locked target directory.
fn clean_environment(command: &mut Command) {
    // What the user sets to reach the registry and to see colours is kept.
    let kept = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_TERM_"];
    let foreign = ["RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "TARGET", "PROFILE"];
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let from_cargo = name.starts_with("CARGO") && !kept.iter().any(|k| name.starts_with(k));
        if from_cargo || foreign.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name.as_ref());
        }
    }
}
