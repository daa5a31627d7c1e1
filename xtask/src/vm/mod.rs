//! `cargo xtask vm`: boots a Debian kernel under QEMU and runs one command there.
//!
//! Owns the contents of the machine and the files of a boot. The kernel comes from `kernel`, its
//! modules from `modules`, programs of another architecture from `userland`, the file system from
//! `archive`; `qemu` runs the machine.

use std::{
    fs,
    io::BufWriter,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{architecture::Architecture, build_ebpf, process, setup::folder};

mod archive;
mod cache;
mod emulator;
mod kernel;
mod modules;
pub(crate) mod nic;
mod qemu;
mod userland;

use archive::Archive;
pub(crate) use emulator::Emulator;
use kernel::Kernel;
pub(crate) use kernel::NEWEST;
use nic::Nic;
pub(crate) use qemu::may_create_taps;

/// The machine's init: mounts, loads modules, runs the command, powers off.
const INIT: &str = include_str!("init.sh");
/// Packed if the host has them: tests create devices and inspect kernels with these.
const GUEST_TOOLS: [&str; 9] =
    ["bash", "ip", "tc", "ethtool", "bpftool", "nft", "iperf3", "unshare", "nsenter"];
/// Directories that must always exist in the machine.
const GUEST_DIRECTORIES: [&str; 9] =
    ["/dev", "/etc", "/proc", "/root", "/run", "/sys", "/tmp", "/usr/sbin", "/var/run"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series as Debian names it, such as 5.10, 6.1, 6.12, 6.12-rt, 6.12-full with all
    /// drivers, or newest
    kernel: String,
    /// Architecture of the machine [default: this one's]
    #[arg(long, value_name = "ARCHITECTURE")]
    arch: Option<Architecture>,
    /// Environment variable for the command (repeatable)
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = parse_variable)]
    variables: Vec<(String, String)>,
    /// File of the host to pack at the same path, with the libraries it needs (repeatable)
    #[arg(long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Two NICs of this kind on one wire (repeatable; needs a kernel with all drivers, like 6.12-full)
    #[arg(long = "nic", value_name = "KIND")]
    nics: Vec<Nic>,
    /// Seconds after which the machine is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    deadline: u64,
    /// Command and arguments to run as root
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// A machine to boot for one command.
pub(crate) struct Guest {
    pub(crate) kernel: String,
    pub(crate) architecture: Architecture,
    pub(crate) command: Vec<String>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) nics: Vec<Nic>,
    pub(crate) deadline: Duration,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let guest = Guest {
        kernel: args.kernel,
        architecture: args.arch.map_or_else(Architecture::host, Ok)?,
        command: args.command,
        variables: args.variables,
        files: args.files,
        nics: args.nics,
        deadline: Duration::from_secs(args.deadline),
    };
    let status = boot(&guest, &mut |_| {})?;
    Ok(ExitCode::from(status))
}

/// Downloads a kernel if it is not there yet.
pub(crate) fn fetch(kernel: &str, architecture: Architecture) -> Result<()> {
    kernel::fetch(kernel, architecture).map(drop)
}

/// Boots the machine, copies the command's output to standard output as it arrives, passes each
/// line to `watch` too, and returns the command's exit status (128 + n for signal n).
pub(crate) fn boot(guest: &Guest, watch: &mut dyn FnMut(&str)) -> Result<u8> {
    let kernel = kernel::fetch(&guest.kernel, guest.architecture)?;
    let emulator = match guest.nics.iter().any(|nic| nic.needs_newer_emulator()) {
        true => Some(Emulator::fetch()?),
        false => None,
    };
    let run = Run::create(&guest.kernel)?;
    let packed = Instant::now();
    let size = pack(guest, &kernel, &run.initramfs())?;
    process::step(&format!(
        "packed an initramfs of {} MiB in {:.1} s",
        size >> 20,
        packed.elapsed().as_secs_f64()
    ));
    let machine = qemu::Machine {
        architecture: guest.architecture,
        image: &kernel.image,
        release: &kernel.release,
        directory: &run.directory,
        initramfs: &run.initramfs(),
        nics: &guest.nics,
        emulator: emulator.as_ref(),
        deadline: guest.deadline,
    };
    let status = machine.run(watch)?;
    run.remove();
    Ok(status)
}

/// The files of one boot; kept when it fails, because they include the console log.
struct Run {
    directory: PathBuf,
}

impl Run {
    fn create(kernel: &str) -> Result<Self> {
        // A failed boot keeps its files until the next one.
        folder::sweep(&cache::directory(), |name| name.starts_with("run-"));
        let directory = cache::directory().join(format!("run-{kernel}-{}", std::process::id()));
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(Self { directory })
    }

    fn initramfs(&self) -> PathBuf {
        self.directory.join("initramfs.cpio")
    }

    fn remove(&self) {
        // Left-over files in the target directory do no harm.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Writes the machine's file system to `path` and returns its size in bytes.
///
/// Uncompressed: it never leaves the host, and decompression is slow when emulated.
fn pack(guest: &Guest, kernel: &Kernel, path: &Path) -> Result<u64> {
    let mut archive = Archive::default();
    for directory in GUEST_DIRECTORIES {
        archive.directory(Path::new(directory));
    }
    let busybox = pack_tools(guest.architecture, &mut archive)?;
    for file in &guest.files {
        archive.program(&std::path::absolute(file)?)?;
    }

    let mut order = String::new();
    for module in modules::load_order(kernel)? {
        let name = format!("/modules/{}.ko", module.name);
        archive.bytes(Path::new(&name), module.read()?, 0o644);
        order.push_str(&format!("{name}\n"));
    }
    archive.bytes(Path::new("/modules/order"), order.into_bytes(), 0o644);
    archive.bytes(Path::new("/etc/passwd"), b"root:x:0:0:root:/root:/bin/sh\n".to_vec(), 0o644);
    let command = command_script(guest, &mut archive)?;
    archive.bytes(Path::new("/command"), command, 0o755);
    let init = INIT.replace("@BUSYBOX@", &busybox.to_string_lossy());
    let init = init.replace("@CHANNEL@", qemu::channel(guest.architecture));
    archive.bytes(Path::new("/init"), init.into_bytes(), 0o755);

    let file =
        fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut out = BufWriter::new(file);
    archive.write(&mut out).with_context(|| format!("cannot write {}", path.display()))
}

/// Packs the programs that tests use and returns the path of busybox.
fn pack_tools(architecture: Architecture, archive: &mut Archive) -> Result<PathBuf> {
    if !architecture.is_host() {
        userland::pack(architecture, archive)?;
        return Ok(PathBuf::from(userland::BUSYBOX));
    }
    let busybox = process::need("busybox")?;
    archive.program(&busybox)?;
    for tool in GUEST_TOOLS.iter().filter_map(|name| build_ebpf::find_program(name)) {
        archive.program(&tool)?;
    }
    Ok(busybox)
}

/// A shell script that execs the command. Packs the program too if the host has it.
fn command_script(guest: &Guest, archive: &mut Archive) -> Result<Vec<u8>> {
    let Some((name, arguments)) = guest.command.split_first() else {
        bail!("no command for the virtual machine: give one after `--`");
    };
    let program = if name.contains('/') {
        Some(std::path::absolute(name)?)
    } else if !guest.architecture.is_host() {
        None
    } else {
        // If not found here, it is searched in the machine's PATH, where busybox has many applets.
        build_ebpf::find_program(name)
    };
    if let Some(program) = &program {
        archive.program(program)?;
    }
    let program = program.map_or_else(|| name.clone(), |path| path.to_string_lossy().into_owned());

    let mut script = String::new();
    for (name, value) in &guest.variables {
        script.push_str(&format!("export {name}={}\n", quote(value)));
    }
    script.push_str(&format!("exec {}", quote(&program)));
    for argument in arguments {
        script.push_str(&format!(" {}", quote(argument)));
    }
    script.push('\n');
    Ok(script.into_bytes())
}

/// Quotes `text` as one shell word.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(fits) || name.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err(format!("{name:?} is not a valid name of an environment variable"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_survive_a_shell() {
        let awkward = "it's $HOME; `ls` \"x\"\n\\";
        let echoed = std::process::Command::new("sh")
            .args(["-c", &format!("printf %s {}", quote(awkward))])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(echoed.stdout).unwrap(), awkward);
    }

    #[test]
    fn variables_need_a_name() {
        assert_eq!(parse_variable("A_1=x=y"), Ok(("A_1".into(), "x=y".into())));
        for bad in ["A", "=x", "1A=x", "A B=x", "A;B=x"] {
            assert!(parse_variable(bad).is_err(), "{bad}");
        }
    }
}
