//! Compiles the eBPF crates: finds a compiler with a core library for BPF and a bpf-linker with the
//! same LLVM, and runs cargo with them.
//!
//! Owns the requirements of the build. Installs nothing: errors point to `cargo xtask setup`. Uses
//! only the standard library: it is part of latency-user's build script and of xtask.

use std::{
    env,
    error::Error,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Why the eBPF programs could not be built, with the command that fixes it.
#[derive(Debug)]
pub(crate) struct BuildError(String);

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for BuildError {}

/// Source of the core library for the BPF target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Core {
    /// Shipped with the compiler, as in Debian's packages.
    Prebuilt,
    /// Compiled from rust-src, which only nightly can do.
    BuildStd,
}

/// A rustc that can compile for BPF, and the cargo that belongs to it.
pub(crate) struct Compiler {
    rustc: PathBuf,
    cargo: PathBuf,
    core: Core,
    /// Major version of its LLVM; `None` if `rustc -vV` does not print one.
    pub(crate) llvm: Option<u32>,
}

impl Compiler {
    /// Its programs: the compiler and cargo.
    #[allow(dead_code, reason = "the build script that includes this file does not call it")]
    pub(crate) fn programs(self) -> (PathBuf, PathBuf) {
        (self.rustc, self.cargo)
    }
}

/// The linker that turns LLVM bitcode into a BPF object.
pub(crate) struct Linker {
    path: PathBuf,
    /// Major version of the LLVM it loads; `None` if that is unknown (static builds).
    pub(crate) llvm: Option<u32>,
}

const TARGET_DIRECTORY: &str = "target/bpf";

/// Tells the crates of the kernel side which machine's registers hold the arguments of a kprobe.
const MACHINE: &str = "AYA_BPF_TARGET_ARCH";

/// What the object is made of. The third version of the instructions, with comparisons and arithmetic
/// of 32 bits, is understood by every kernel since 5.1. Without the last option, each assignment of a
/// struct would be a call of a function that copies byte by byte.
const CODE_GENERATION: [&str; 6] = [
    "-C",
    "link-arg=--btf",
    "-C",
    "target-cpu=v3",
    "-C",
    "link-arg=--disable-expand-memcpy-in-order",
];

/// Builds the binaries of `packages` for kernels of `architecture`, as cargo names it (`x86_64`),
/// and returns the directory of the objects. There is one object per package, with the name of the
/// package.
///
/// The target directory is one of an architecture below `target/bpf`, separate from the
/// workspace's: the outer cargo holds the lock on the latter while a build script calls this.
pub(crate) fn build(
    workspace: &Path,
    packages: &[&str],
    architecture: &str,
) -> Result<PathBuf, BuildError> {
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
    let target_dir = workspace.join(TARGET_DIRECTORY).join(architecture);
    let mut cargo = Command::new(&compiler.cargo);
    clean_environment(&mut cargo);
    cargo.current_dir(workspace).env("RUSTC", &compiler.rustc).env(MACHINE, architecture);
    // Encoded, so that a path with a space stays one argument.
    let linker_flag = format!("linker={}", linker.path.display());
    let mut flags: Vec<String> =
        ["-C", &linker_flag, "-C", "debuginfo=2"].map(str::to_owned).into();
    flags.extend(CODE_GENERATION.map(str::to_owned));
    // Wherever it is compiled, the object is the same.
    for (from, to) in [(workspace.canonicalize().ok(), "latency-user"), (cargo_home(), "cargo")] {
        flags.extend(from.map(|from| format!("--remap-path-prefix={}={to}", from.display())));
    }
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
    // In a build script, cargo would read standard output as directives.
    cargo.stdin(Stdio::null()).stdout(Stdio::null());

    let status = cargo
        .status()
        .map_err(|error| BuildError(format!("{}: {error}", compiler.cargo.display())))?;
    if !status.success() {
        return Err(BuildError(format!(
            "compiling {} for {target} failed ({status}): see the compiler's messages above; \
             if they are about the toolchain, run `cargo xtask setup`",
            packages.join(", ")
        )));
    }
    Ok(objects(workspace, architecture))
}

/// The directory of the objects that [`build`] creates.
pub(crate) fn objects(workspace: &Path, architecture: &str) -> PathBuf {
    workspace.join(TARGET_DIRECTORY).join(architecture).join(target()).join("release")
}

/// A compiler that can build for BPF; one with a prebuilt core library is preferred.
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

/// The bpf-linker on PATH or in the directory of `cargo install`.
pub(crate) fn find_linker() -> Option<Linker> {
    let installed =
        cargo_home().map(|home| home.join("bin/bpf-linker")).filter(|path| path.is_file());
    let path = find_program("bpf-linker").or(installed)?;
    // `bpf-linker --version` prints only its own version, so ask the dynamic loader.
    let libraries = output("ldd", [&path]).unwrap_or_default();
    let llvm = libraries.split("libLLVM").nth(1).and_then(first_number);
    Some(Linker { path, llvm })
}

/// Where cargo keeps sources and what it installs.
fn cargo_home() -> Option<PathBuf> {
    let set = env::var_os("CARGO_HOME").map(PathBuf::from);
    set.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}

/// The path of a program, searched in PATH and then in the directories of root's tools, which are
/// often missing from an ordinary user's PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Checks the versions first: an older LLVM cannot read the bitcode of a newer one, and its error
/// message is obscure.
fn check_llvm(compiler: &Compiler, linker: &Linker) -> Result<(), BuildError> {
    match (compiler.llvm, linker.llvm) {
        (Some(rustc), Some(bpf_linker)) if rustc != bpf_linker => Err(BuildError(format!(
            "{} uses LLVM {rustc} but {} uses LLVM {bpf_linker}: they must be equal; \
             `cargo xtask setup` builds a matching bpf-linker",
            compiler.rustc.display(),
            linker.path.display()
        ))),
        _ => Ok(()),
    }
}

/// The BPF target with the byte order of the machine that will run the programs. In a build script
/// that is cargo's target.
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

/// Removes variables that an outer cargo or rustup sets for the host build: they would select
/// another compiler, other flags or a locked target directory.
fn clean_environment(command: &mut Command) {
    // Keep the user's settings for the registry and for colours.
    let keep = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_TERM_"];
    let remove = ["RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "TARGET", "PROFILE"];
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let from_cargo = name.starts_with("CARGO") && !keep.iter().any(|k| name.starts_with(k));
        if from_cargo || remove.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name.as_ref());
        }
    }
}
