//! `cargo xtask setup`: installs only what is missing on this machine.
//!
//! Owns the list of tools that each level needs. `apt` calls the package manager, `unpacked` brings
//! packages without installing them into a `folder`, `toolchain` installs the BPF toolchain, and
//! `build_ebpf` detects compilers that can build for BPF.

use std::process::{Command, ExitCode, Stdio};

use anyhow::Result;

use crate::{build_ebpf, process};

pub(crate) mod apt;
pub(crate) mod folder;
mod toolchain;
pub(crate) mod unpacked;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What the machine must be able to do afterwards
    #[arg(long, value_enum, default_value_t = Level::Test)]
    level: Level,
}

/// Each level includes those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Level {
    /// Compile the eBPF programs and latency-user
    Build,
    /// Also create network namespaces and generate load in them
    Demo,
    /// Also run every test, including those in virtual machines
    Test,
}

/// How to detect a tool.
enum Presence {
    Program(&'static str),
    /// Statements that succeed.
    Python(&'static str),
}

/// A tool, the lowest level that needs it, and the Debian package that provides it.
struct Tool {
    level: Level,
    presence: Presence,
    package: &'static str,
}

const fn program(level: Level, program: &'static str, package: &'static str) -> Tool {
    Tool { level, presence: Presence::Program(program), package }
}

const TOOLS: &[Tool] = &[
    program(Level::Demo, "ip", "iproute2"),
    program(Level::Demo, "unshare", "util-linux"),
    program(Level::Test, "bpftrace", "bpftrace"),
    program(Level::Test, "bpftool", "bpftool"),
    program(Level::Test, "qemu-system-x86_64", "qemu-system-x86"),
    program(Level::Test, "qemu-system-aarch64", "qemu-system-arm"),
    program(Level::Test, "busybox", "busybox-static"),
    // depmod resolves dependencies of the modules for the virtual machines; xz unpacks them.
    program(Level::Test, "depmod", "kmod"),
    program(Level::Test, "xz", "xz-utils"),
    program(Level::Test, "ethtool", "ethtool"),
    program(Level::Test, "nft", "nftables"),
    // Tests kill experiments in the middle of a write.
    program(Level::Test, "strace", "strace"),
    program(Level::Test, "iperf3", "iperf3"),
    program(Level::Test, "iostat", "sysstat"),
    // Documents use them in commands, which are run.
    program(Level::Test, "jq", "jq"),
    program(Level::Test, "llvm-objdump", "llvm"),
    // The HTML report is opened in a browser and checked by axe.
    program(Level::Test, "chromium", "chromium"),
    program(Level::Test, "npm", "npm"),
    // A second HdrHistogram implementation is installed into a virtual environment.
    Tool {
        level: Level::Test,
        presence: Presence::Python("import ensurepip"),
        package: "python3-venv",
    },
    // For Python 3.13 and later it is compiled.
    Tool {
        level: Level::Test,
        presence: Presence::Python(
            "import os, sys, sysconfig\n\
             header = os.path.join(sysconfig.get_path('include'), 'Python.h')\n\
             assert sys.version_info < (3, 13) or os.path.exists(header)",
        ),
        package: "python3-dev",
    },
];

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    ensure(args.level)?;
    process::step("setup complete");
    Ok(ExitCode::SUCCESS)
}

/// Installs what `level` needs; returns at once if nothing is missing.
pub(crate) fn ensure(level: Level) -> Result<()> {
    let missing: Vec<_> = TOOLS
        .iter()
        .filter(|tool| tool.level <= level && !tool.presence.is_met())
        .map(|tool| tool.package)
        .collect();
    apt::install(&missing)?;
    if level >= Level::Test {
        unpacked::prometheus()?;
    }
    toolchain::ensure()
}

impl Presence {
    fn is_met(&self) -> bool {
        match self {
            Self::Program(name) => build_ebpf::find_program(name).is_some(),
            Self::Python(statements) => Command::new("python3")
                .args(["-c", statements])
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success()),
        }
    }
}
