//! `cargo xtask test`: runs all tests, on the running kernel and on Debian's kernels in virtual
//! machines.
//!
//! Owns which test programs run where, and their environment. `tally` counts the results, `vm` runs
//! the machines.
//!
//! Tests find the programs under test through the environment: `LATENCY_USER` and
//! `TCP_COLLAPSE_LOAD` (programs), `STALL_INJECTOR` (an eBPF object) and, in a virtual machine,
//! `LATENCY_VM` (the kernel series).

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    architecture::Architecture,
    bench,
    build::{self, GuestPrograms},
    demo, kernels, process, setup,
    vm::{self, nic::Nic},
    workspace::{self, Artifact, EBPF_PACKAGES, KERNEL_TESTS, TESTS_PACKAGE},
};

mod tally;

use tally::Tally;

/// Debian 12's default kernel.
const OLD_KERNEL: &str = "6.1";
/// Its newest one.
const NEW_KERNEL: &str = "6.12";
/// The kernel of the lab with real NICs: Debian's with all drivers.
const LAB_KERNEL: &str = "6.12-full";
/// A kernel whose softirqs can be preempted.
const RT_KERNEL: &str = "6.12-rt";
/// The tests on kernels whose softirqs can be preempted.
const PREEMPTION: &str = "root::preemption::";
/// Emulation is 10 to 50 times slower.
const VM_DEADLINE: Duration = Duration::from_secs(30 * 60);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Skip the tests in virtual machines
    #[arg(long)]
    no_vm: bool,
    /// Run everything this many times: a test that fails in some of them is a defect
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Only kill tracers and experiments at random moments on this machine: 600 and 200 of them
    #[arg(long)]
    soak: bool,
    /// Only the kernel tests on this kernel, in a virtual machine (repeatable)
    #[arg(long, value_name = "SERIES", conflicts_with = "soak")]
    kernel: Vec<String>,
    /// Architecture of the kernels [default: this machine's]
    #[arg(long, value_name = "ARCHITECTURE", requires = "kernel")]
    arch: Option<Architecture>,
    /// Only the kernel tests whose names contain this, on this machine or the kernels of --kernel
    #[arg(long, value_name = "TEXT", default_value = "", conflicts_with = "soak")]
    only: String,
    /// Only build what the kernel tests of other architectures need
    #[arg(long, requires = "arch", hide = true)]
    only_build: bool,
    /// Only the kernel tests on all kernels and architectures that Debian has, in virtual machines:
    /// hours
    #[arg(long, conflicts_with_all = ["kernel", "soak"])]
    nightly: bool,
}

/// How many times as many kills `--soak` makes.
const SOAK: &str = "20";

/// The eBPF object that makes stalls.
const INJECTOR: &str = "stall-injector-ebpf";

/// Programs and objects under test, of one architecture.
struct Built {
    architecture: Architecture,
    latency_user: PathBuf,
    load: PathBuf,
    injector: PathBuf,
    kernel_tests: PathBuf,
    /// Where the programs of Prometheus are, which is not installed; on the running kernel only.
    prometheus: Option<PathBuf>,
}

impl Built {
    fn here(kernel_tests: &Artifact) -> Result<Self> {
        let architecture = Architecture::host()?;
        Ok(Self {
            architecture,
            injector: workspace::build_ebpf()?.join(INJECTOR),
            latency_user: build::latency_user(architecture)?,
            load: build::release_binary(TESTS_PACKAGE, demo::LOAD)?,
            kernel_tests: kernel_tests.executable.clone(),
            prometheus: Some(setup::unpacked::prometheus()?.join("usr/bin")),
        })
    }

    /// For machines of another architecture.
    fn foreign(architecture: Architecture) -> Result<Self> {
        let injector = workspace::build_ebpf_for(architecture)?.join(INJECTOR);
        let programs = build::guest_programs(architecture, demo::LOAD)?;
        let GuestPrograms { latency_user, load, kernel_tests } = programs;
        Ok(Self { architecture, latency_user, load, injector, kernel_tests, prometheus: None })
    }

    fn variables(&self) -> Vec<(String, String)> {
        let mut variables = vec![
            ("LATENCY_USER", &self.latency_user),
            ("TCP_COLLAPSE_LOAD", &self.load),
            ("STALL_INJECTOR", &self.injector),
        ];
        variables.extend(self.prometheus.as_ref().map(|programs| ("PROMETHEUS", programs)));
        let text = |path: &Path| path.to_string_lossy().into_owned();
        variables.into_iter().map(|(name, path)| (name.to_owned(), text(path))).collect()
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.latency_user.clone(), self.load.clone(), self.injector.clone()]
    }
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(setup::Level::Test)?;
    if let Some(architecture) = args.arch.filter(|architecture| !architecture.is_host()) {
        let built = Built::foreign(architecture)?;
        if args.only_build {
            return Ok(ExitCode::SUCCESS);
        }
        return on_kernels(&args.kernel, &built, &args.only);
    }
    let programs = workspace::system_tests()?;
    let kernel_tests = programs
        .iter()
        .find(|artifact| artifact.kind == "test" && artifact.name == KERNEL_TESTS)
        .with_context(|| format!("{TESTS_PACKAGE} has no test program named {KERNEL_TESTS}"))?;
    let built = Built::here(kernel_tests)?;
    if !args.kernel.is_empty() {
        return on_kernels(&args.kernel, &built, &args.only);
    }
    if args.nightly {
        return nightly(&built);
    }
    if !args.only.is_empty() {
        let mut tally = Tally::default();
        run(root_tests(&built, "1")?.arg(&args.only), &mut tally)?;
        return Ok(outcome(&tally));
    }
    let mut sum = Tally::default();
    if args.soak {
        let mut soak = root_tests(&built, SOAK)?;
        soak.arg("root::soak::");
        run(&mut soak, &mut sum)?;
        return Ok(outcome(&sum));
    }
    for time in 1..=args.times {
        let mut tally = Tally::default();
        run_all(&built, &programs, args.no_vm, &mut tally)?;
        if args.times > 1 {
            println!("run {time} of {}: {tally}", args.times);
        }
        sum.add(&tally);
    }
    Ok(outcome(&sum))
}

/// Runs the kernel tests whose names contain `only` on each kernel, in a virtual machine; that of the
/// lab has its NICs.
fn on_kernels(kernels: &[String], built: &Built, only: &str) -> Result<ExitCode> {
    let mut tally = Tally::default();
    for series in kernels {
        process::step(&format!("kernel tests on Linux {series}, {}", built.architecture.debian()));
        let has_nics = series == LAB_KERNEL && built.architecture.is_host();
        let nics = if has_nics { lab() } else { Vec::new() };
        run_in_vm(series, built, only, &nics, &mut tally);
    }
    Ok(outcome(&tally))
}

/// Runs the kernel tests on every kernel. One that Debian does not have any more is skipped by name.
fn nightly(here: &Built) -> Result<ExitCode> {
    let mut tally = Tally::default();
    for (architecture, kernels) in kernels::ALL {
        let foreign;
        let built = match architecture.is_host() {
            true => here,
            false => {
                foreign = Built::foreign(architecture)?;
                &foreign
            }
        };
        for series in kernels {
            let name = format!("Linux {series}, {}", architecture.debian());
            if let Err(error) = vm::fetch(series, architecture) {
                eprintln!("skipped: {name}: {error:#}");
                tally.skipped += 1;
                continue;
            }
            let mut of_kernel = Tally::default();
            process::step(&format!("kernel tests on {name}"));
            run_in_vm(series, built, "", &[], &mut of_kernel);
            println!("{name}: {of_kernel}");
            tally.add(&of_kernel);
        }
    }
    Ok(outcome(&tally))
}

/// Prints the counts in the line that ends a run.
fn outcome(tally: &Tally) -> ExitCode {
    eprintln!("slowest tests: {}", tally.slowest());
    println!("{tally}");
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_all(built: &Built, programs: &[Artifact], no_vm: bool, tally: &mut Tally) -> Result<()> {
    process::step("tests of the crates");
    run(&mut unit_tests(built), tally)?;
    process::step("system tests that need no root");
    run(&mut host_tests(built, programs), tally)?;
    // In the time that the tests leave: most of them wait.
    let tools = (!no_vm).then(|| build::cross_tools(Architecture::Arm64));
    let guests = match tools {
        None => None,
        Some(Ok(())) => Some(IdleBuild::start(Architecture::Arm64)?),
        Some(Err(error)) => {
            eprintln!("skipped: Linux {NEW_KERNEL}, arm64: {error:#}");
            tally.skipped += 1;
            None
        }
    };
    process::step("kernel tests on the running kernel");
    run(&mut root_tests(built, "1")?, tally)?;
    let foreign = guests.map(IdleBuild::end).transpose()?;
    process::step("quick run of the benchmark");
    run_bench(tally)?;
    if no_vm {
        return Ok(());
    }
    // An emulated machine takes one CPU: the slowest runs beside the others.
    for series in [OLD_KERNEL, NEW_KERNEL, RT_KERNEL, LAB_KERNEL] {
        vm::fetch(series, built.architecture)?;
    }
    process::step(&format!("kernel tests on Linux {OLD_KERNEL} in a virtual machine, beside:"));
    let mut beside = Beside::start(OLD_KERNEL, built)?;
    process::step(&format!("kernel tests on Linux {NEW_KERNEL} in a virtual machine"));
    run_in_vm(NEW_KERNEL, built, "", &[], tally);
    process::step("kernel tests on PREEMPT_RT in a virtual machine");
    run_in_vm(RT_KERNEL, built, PREEMPTION, &[], tally);
    process::step(&format!("kernel tests on Linux {NEW_KERNEL}, arm64, beside:"));
    let fetched = foreign.map(|foreign| (vm::fetch(NEW_KERNEL, foreign.architecture), foreign));
    let foreign_beside = match fetched {
        None => None,
        Some((Ok(()), foreign)) => Some(Beside::start(NEW_KERNEL, &foreign)?),
        Some((Err(error), _)) => {
            eprintln!("skipped: Linux {NEW_KERNEL}, arm64: {error:#}");
            tally.skipped += 1;
            None
        }
    };
    process::step("kernel tests on real NICs in a virtual machine");
    run_in_vm(LAB_KERNEL, built, "root::lab::", &lab(), tally);
    process::step(&format!("kernel tests on Linux {OLD_KERNEL}, which ran beside"));
    beside.end(tally)?;
    process::step(&format!("kernel tests on Linux {NEW_KERNEL}, arm64, which ran beside"));
    foreign_beside.map_or(Ok(()), |mut beside| beside.end(tally))
}

/// A build of what the kernel tests of another architecture need, in a process of its own that runs
/// only while nothing else does.
struct IdleBuild {
    architecture: Architecture,
    child: Child,
}

impl IdleBuild {
    fn start(architecture: Architecture) -> Result<Self> {
        let output = workspace::root().join("target/cross-build.log");
        let file = File::create(&output).with_context(|| format!("write {}", output.display()))?;
        let mut command = Command::new(env::current_exe().context("find this program")?);
        command.args(["test", "--only-build", "--kernel", NEW_KERNEL, "--arch"]);
        command.arg(architecture.debian());
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        process::die_with_parent(&mut command, libc::SIGTERM);
        process::only_when_idle(&mut command);
        let child = command.spawn().with_context(|| process::line(&command))?;
        Ok(Self { architecture, child })
    }

    /// Waits for its end.
    fn end(mut self) -> Result<Built> {
        process::step(&format!("waiting for the build for {}", self.architecture.rust()));
        // Failed or not: what is missing is built now, with its messages.
        self.child.wait()?;
        Built::foreign(self.architecture)
    }
}

impl Drop for IdleBuild {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A machine that runs beside this process, in a process of its own. What it prints is kept.
struct Beside {
    series: &'static str,
    child: Child,
    output: PathBuf,
}

impl Beside {
    fn start(series: &'static str, built: &Built) -> Result<Self> {
        let architecture = built.architecture.debian();
        let name = format!("target/vm/beside-{series}-{architecture}.log");
        let output = workspace::root().join(name);
        let file = File::create(&output).with_context(|| format!("write {}", output.display()))?;
        let mut command = Command::new(env::current_exe().context("find this program")?);
        command.args(["vm", "--arch", architecture, "--deadline"]);
        command.arg(VM_DEADLINE.as_secs().to_string());
        let mut variables = built.variables();
        variables.push(("LATENCY_VM".to_owned(), series.to_owned()));
        for (name, value) in variables {
            command.arg("--env").arg(format!("{name}={value}"));
        }
        for file in built.files() {
            command.arg("--file").arg(file);
        }
        command.arg(series).arg("--").arg(&built.kernel_tests);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        process::die_with_parent(&mut command, libc::SIGTERM);
        let child = command.spawn().with_context(|| process::line(&command))?;
        Ok(Self { series, child, output })
    }

    /// Waits for its end, prints its output and counts its results.
    fn end(&mut self, tally: &mut Tally) -> Result<()> {
        let status = self.child.wait()?;
        let failed_before = tally.failed;
        let text = fs::read(&self.output)?;
        for line in String::from_utf8_lossy(&text).lines() {
            println!("{line}");
            tally.line(line);
        }
        if !status.success() && tally.failed == failed_before {
            eprintln!("error: the kernel tests on Linux {} ended with {status}", self.series);
            tally.failed += 1;
        }
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tests of all crates except the eBPF crates and the system tests.
fn unit_tests(built: &Built) -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--no-fail-fast", "--workspace", "--exclude", TESTS_PACKAGE]);
    for package in EBPF_PACKAGES {
        cargo.args(["--exclude", package]);
    }
    cargo.envs(built.variables());
    cargo
}

/// The system tests without the kernel tests, which run separately as root.
fn host_tests(built: &Built, programs: &[Artifact]) -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--no-fail-fast", "--package", TESTS_PACKAGE]);
    for program in programs {
        match program.kind.as_str() {
            "lib" => cargo.arg("--lib"),
            "test" if program.name != KERNEL_TESTS => cargo.args(["--test", &program.name]),
            _ => &mut cargo,
        };
    }
    cargo.envs(built.variables());
    cargo
}

fn root_tests(built: &Built, soak: &str) -> Result<Command> {
    let directory = workspace::root().join("tests");
    // `env`, because sudo passes no variables on.
    let mut command = process::as_root("env")?;
    command.arg(format!("CARGO_MANIFEST_DIR={}", directory.display()));
    command.args(built.variables().iter().map(|(name, value)| format!("{name}={value}")));
    command.arg(format!("LATENCY_SOAK={soak}"));
    command.arg(&built.kernel_tests).current_dir(directory);
    Ok(command)
}

/// Runs test programs to completion; prints their output and counts the results.
fn run(command: &mut Command, tally: &mut Tally) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let line = process::line(command);
    let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
    let stdout = child.stdout.take().context("the output of tests was not piped")?;
    let failed_before = tally.failed;
    let mut out = std::io::stdout().lock();
    for text in BufReader::new(stdout).split(b'\n') {
        let text = text.with_context(|| format!("cannot read from `{line}`"))?;
        out.write_all(&text)?;
        out.write_all(b"\n")?;
        tally.line(&String::from_utf8_lossy(&text));
    }
    let status = child.wait()?;
    if !status.success() && tally.failed == failed_before {
        // It did not compile, or died before it reported its counts.
        eprintln!("error: `{line}` failed ({status})");
        tally.failed += 1;
    }
    Ok(())
}

/// Counts as one test: it checks the counts of every tracer.
fn run_bench(tally: &mut Tally) -> Result<()> {
    let mut command = bench::trial()?;
    let line = process::line(&command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    *if status.success() { &mut tally.passed } else { &mut tally.failed } += 1;
    Ok(())
}

/// The kinds of NICs that this machine can emulate; says which it cannot.
fn lab() -> Vec<Nic> {
    let mut nics = Nic::ALL.to_vec();
    if let Err(error) = vm::Emulator::fetch() {
        eprintln!("skipped: igb: no newer QEMU: {error:#}");
        nics.retain(|nic| !nic.needs_newer_emulator());
    }
    if !vm::may_create_taps() {
        eprintln!("skipped: virtio-mq: needs root and /dev/net/tun");
        nics.retain(|nic| *nic != Nic::VirtioMq);
    }
    nics
}

/// Like `run`, in a virtual machine, with the tests whose names contain `filter`. A machine that dies
/// counts as one failure and does not stop the others.
fn run_in_vm(series: &str, built: &Built, filter: &str, nics: &[Nic], tally: &mut Tally) {
    let mut variables = built.variables();
    variables.push(("LATENCY_VM".to_owned(), series.to_owned()));
    let mut command = vec![built.kernel_tests.to_string_lossy().into_owned()];
    if !nics.is_empty() {
        let names: Vec<&str> = nics.iter().map(|nic| nic.name()).collect();
        variables.push(("LATENCY_LAB".to_owned(), names.join(",")));
    }
    if !filter.is_empty() {
        command.push(filter.to_owned());
    }
    let guest = vm::Guest {
        kernel: series.to_owned(),
        architecture: built.architecture,
        command,
        variables,
        files: built.files(),
        nics: nics.to_vec(),
        deadline: VM_DEADLINE,
    };
    let failed_before = tally.failed;
    match vm::boot(&guest, &mut |line| tally.line(line)) {
        Ok(0) => {}
        Ok(_) if tally.failed > failed_before => {}
        Ok(status) => {
            eprintln!("error: the kernel tests on Linux {series} ended with status {status}");
            tally.failed += 1;
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            tally.failed += 1;
        }
    }
}
