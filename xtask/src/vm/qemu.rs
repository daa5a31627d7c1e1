//! Runs one virtual machine under QEMU, watches it, and always ends it.
//!
//! Owns QEMU's arguments, the choice between KVM and emulation, the deadline and the messages of a
//! kernel in trouble. The second serial line carries the command's output between the marker lines
//! that `init.sh` writes; the first is the console, written to a file that is polled.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    cache,
    emulator::Emulator,
    nic::{self, Nic},
};
use crate::{architecture::Architecture, process};

const READY: &[u8] = b"xtask-vm: ready";
const EXIT: &[u8] = b"xtask-vm: exit ";
/// The command asks that the machine is not run for this many ms, [`FREEZE_AFTER`] later: what a
/// hypervisor does that gives its CPUs to others.
const FREEZE: &[u8] = b"xtask-vm: freeze ";
/// The command prepares what is to be frozen only after its request got through.
const FREEZE_AFTER: Duration = Duration::from_millis(300);
/// Messages after which a kernel will not finish the command.
const TROUBLE: [&str; 7] = [
    "Kernel panic",
    "BUG: unable to handle",
    "general protection fault",
    "self-detected stall on CPU",
    "detected stalls on CPUs",
    "BUG: soft lockup",
    "hard LOCKUP",
];
/// None of these changes how softirqs run compared with a real machine; mitigations are off because
/// they are expensive under emulation.
const KERNEL_ARGUMENTS: &str = "quiet loglevel=4 panic=-1 mitigations=off";
/// With working KVM a machine is ready within 3 s. Where /dev/kvm can be opened but does not work,
/// QEMU hangs forever.
const KVM_READY: Duration = Duration::from_secs(20);
/// How often to check the console and the clock while the command prints nothing.
const WATCH: Duration = Duration::from_millis(200);
/// How long a machine may take to power off after it reported the exit status.
const POWER_OFF: Duration = Duration::from_secs(10);
/// How long to wait for the rest of a kernel's trouble report.
const TROUBLE_REPORT: Duration = Duration::from_secs(1);
const TAIL_LINES: usize = 40;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Acceleration {
    Kvm,
    Emulation,
}

/// The device of the second serial line in the machine.
pub(super) const fn channel(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Amd64 => "/dev/ttyS1",
        // The board has one line; another is on the PCI bus.
        Architecture::Arm64 => "/dev/ttyS0",
    }
}

/// The name of QEMU's program.
const fn program(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Amd64 => "qemu-system-x86_64",
        Architecture::Arm64 => "qemu-system-aarch64",
    }
}

/// What to boot, and where to write its files.
pub(crate) struct Machine<'a> {
    pub(crate) architecture: Architecture,
    pub(crate) image: &'a Path,
    pub(crate) release: &'a str,
    pub(crate) initramfs: &'a Path,
    /// Receives the console log and QEMU's own messages.
    pub(crate) directory: &'a Path,
    /// Pairs of NICs.
    pub(crate) nics: &'a [Nic],
    /// The emulator; `None`: the system's.
    pub(crate) emulator: Option<&'a Emulator>,
    pub(crate) deadline: Duration,
}

/// How far a machine got.
enum End {
    /// The command ended with this status.
    Status(u8),
    /// It never reached the command.
    NotReady(String),
    /// It was killed, or ended by itself, while the command ran.
    Died(String),
}

impl Machine<'_> {
    /// Boots with KVM if it works here, otherwise emulated, and returns the command's exit status.
    pub(crate) fn run(&self, watch: &mut dyn FnMut(&str)) -> Result<u8> {
        let mut end = None;
        if self.architecture.is_host() && kvm_may_work() {
            match self.boot(Acceleration::Kvm, watch)? {
                End::NotReady(why) => {
                    process::step(&format!("KVM does not work here ({why}): using emulation"));
                    // Only a hint for the next boot: ignore errors.
                    let _ = fs::write(kvm_is_broken(), "remove this file to try KVM again\n");
                }
                reached => end = Some(reached),
            }
        }
        let end = match end {
            Some(end) => end,
            None => self.boot(Acceleration::Emulation, watch)?,
        };
        match end {
            End::Status(status) => Ok(status),
            End::NotReady(why) | End::Died(why) => Err(self.failure(&why)),
        }
    }

    fn boot(&self, acceleration: Acceleration, watch: &mut dyn FnMut(&str)) -> Result<End> {
        let how = if acceleration == Acceleration::Kvm { "KVM" } else { "emulation" };
        process::step(&format!("booting Linux {} with {how}", self.release));
        let started = Instant::now();
        let ready_deadline = match acceleration {
            Acceleration::Kvm => KVM_READY,
            Acceleration::Emulation => self.deadline,
        };
        let mut qemu = self.start(acceleration)?;
        let lines = qemu.lines()?;
        let mut console = Console::new(self.console());
        let mut output = Output::default();
        let mut ready = false;

        loop {
            let line = match lines.recv_timeout(WATCH) {
                Ok(line) => Some(line),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) if ready => {
                    let why = console.trouble();
                    return Ok(End::Died(
                        why.unwrap_or_else(|| "it ended before its command did".into()),
                    ));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Ok(End::NotReady("QEMU ended before the command started".into()));
                }
            };
            match line {
                Some(line) if line.starts_with(EXIT) => {
                    output.newline_pending = false;
                    let status = String::from_utf8_lossy(&line[EXIT.len()..]).trim().parse();
                    let status = status.context("the machine reported no exit status")?;
                    qemu.wait(POWER_OFF);
                    return Ok(End::Status(status));
                }
                Some(line) if !ready => {
                    ready = line.starts_with(READY);
                    if ready {
                        let seconds = started.elapsed().as_secs_f64();
                        process::step(&format!("ready after {seconds:.1} s"));
                    }
                }
                Some(line) if line.starts_with(FREEZE) => {
                    let ms = String::from_utf8_lossy(&line[FREEZE.len()..]).trim().parse();
                    qemu.freeze(Duration::from_millis(ms.context("freeze for how many ms?")?))?;
                }
                Some(line) => {
                    output.show(&line)?;
                    watch(&String::from_utf8_lossy(&line));
                }
                None => {}
            }
            if let Some(trouble) = console.trouble() {
                // The lines that follow, above all the call trace, belong to the report.
                thread::sleep(TROUBLE_REPORT);
                return Ok(if ready { End::Died(trouble) } else { End::NotReady(trouble) });
            }
            if !ready && started.elapsed() > ready_deadline {
                let seconds = ready_deadline.as_secs();
                return Ok(End::NotReady(format!("not ready after {seconds} s")));
            }
            if started.elapsed() > self.deadline {
                let why =
                    format!("its command was still running after {} s", self.deadline.as_secs());
                return Ok(End::Died(why));
            }
        }
    }

    fn start(&self, acceleration: Acceleration) -> Result<Qemu> {
        let qemu = match self.emulator {
            Some(emulator) => emulator.program(),
            None => process::need(program(self.architecture))?,
        };
        // In a network namespace of its own: nothing else is connected to its tap devices.
        let mut command = if self.nics.contains(&Nic::VirtioMq) {
            nic::with_bridge(&qemu, self.directory)?
        } else if may_create_taps() {
            let mut unshare = Command::new(process::need("unshare")?);
            unshare.arg("--net").arg(qemu);
            unshare
        } else {
            Command::new(qemu)
        };
        if let Some(emulator) = self.emulator {
            emulator.prepare(&mut command);
        }
        match acceleration {
            Acceleration::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
            // Single-threaded: with one thread per CPU, a CPU can still execute a breakpoint that
            // another CPU has just removed from the kernel's code (attaching a tracepoint sets
            // one briefly), and the kernel panics with "int3: 0000".
            Acceleration::Emulation => {
                // The default signs pointers by an algorithm that is slow to emulate.
                let cpu = match self.architecture {
                    Architecture::Amd64 => "max",
                    Architecture::Arm64 => "max,pauth-impdef=on",
                };
                command.args(["-accel", "tcg,thread=single", "-cpu", cpu])
            }
        };
        // NICs have as many queues as CPUs, at most.
        let cpus = if self.nics.is_empty() { "2" } else { "4" };
        command.args(["-smp", cpus, "-m", "2048", "-no-reboot", "-nodefaults"]);
        command.args(["-display", "none", "-monitor", "none"]);
        let mut kernel_arguments = format!("{KERNEL_ARGUMENTS} console={}", self.console_device());
        match self.architecture {
            Architecture::Amd64 => {
                // An emulated timer may be too slow for the kernel's check of its interrupt.
                kernel_arguments.push_str(" no_timer_check");
                if !self.nics.is_empty() {
                    // PCIe, for NICs that are devices of it.
                    command.args(["-machine", "q35"]);
                }
            }
            // Interrupts with priorities, so that a PMU can have one that is not masked.
            Architecture::Arm64 => {
                command.args(["-machine", "virt,gic-version=3"]);
                kernel_arguments.push_str(" irqchip.gicv3_pseudo_nmi=1");
            }
        }
        if self.nics.is_empty() {
            single_nics(&mut command);
        }
        for (number, nic) in self.nics.iter().enumerate() {
            nic.add_pair(&mut command, number, self.directory);
        }
        command.arg("-serial").arg(format!("file:{}", self.console().display()));
        match self.architecture {
            Architecture::Amd64 => command.args(["-serial", "stdio"]),
            Architecture::Arm64 => command.args([
                "-chardev",
                "stdio,id=channel",
                "-device",
                "pci-serial,chardev=channel",
            ]),
        };
        command.arg("-kernel").arg(self.image).arg("-initrd").arg(self.initramfs);
        command.args(["-append", &kernel_arguments]);

        let log = File::create(self.qemu_log())
            .with_context(|| format!("cannot write {}", self.qemu_log().display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        process::die_with_parent(&mut command, libc::SIGKILL);
        let child = command.spawn().context("cannot start QEMU")?;
        Ok(Qemu(child))
    }

    const fn console_device(&self) -> &'static str {
        match self.architecture {
            Architecture::Amd64 => "ttyS0",
            Architecture::Arm64 => "ttyAMA0",
        }
    }

    fn console(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    fn qemu_log(&self) -> PathBuf {
        self.directory.join("qemu.log")
    }

    /// Prints the ends of the logs and turns `why` into an error.
    fn failure(&self, why: &str) -> anyhow::Error {
        for log in [self.qemu_log(), self.console()] {
            let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
            let lines: Vec<_> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
                eprintln!("vm: {line}");
            }
        }
        // Large, and of no use for finding the cause.
        let _ = fs::remove_file(self.initramfs);
        anyhow::anyhow!(
            "the virtual machine with Linux {} failed: {why} (console log: {})",
            self.release,
            self.console().display()
        )
    }
}

/// Adds NICs that are connected to nothing.
fn single_nics(command: &mut Command) {
    // One with real interrupts; user-mode networking needs no root on the host.
    command.args(["-netdev", "user,id=net0,restrict=on"]);
    command.args(["-device", "virtio-net-pci,netdev=net0"]);
    // One whose driver rounds ring sizes.
    command.args(["-netdev", "user,id=net1,restrict=on"]);
    command.args(["-device", "vmxnet3,netdev=net1"]);
    if may_create_taps() {
        command.args(["-netdev", "tap,id=net2,queues=2,vhost=off,script=no,downscript=no"]);
        // Two vectors per queue pair, one for control and one for configuration changes.
        command.args(["-device", "virtio-net-pci,netdev=net2,mq=on,vectors=6"]);
    }
}

/// Whether the machine can have a multi-queue virtio NIC, which needs a tap device and root.
pub(crate) fn may_create_taps() -> bool {
    // SAFETY: geteuid takes no arguments and cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    is_root && Path::new("/dev/net/tun").exists()
}

/// The file that marks that KVM was tried on this host and did not work.
fn kvm_is_broken() -> PathBuf {
    cache::directory().join("kvm-does-not-work")
}

fn kvm_may_work() -> bool {
    let opened = File::options().read(true).write(true).open("/dev/kvm");
    opened.is_ok() && !kvm_is_broken().exists()
}

/// A running QEMU; killed when dropped.
struct Qemu(Child);

impl Qemu {
    /// Stops the whole machine for a while.
    fn freeze(&self, duration: Duration) -> Result<()> {
        thread::sleep(FREEZE_AFTER);
        self.signal(libc::SIGSTOP)?;
        thread::sleep(duration);
        self.signal(libc::SIGCONT)
    }

    fn signal(&self, signal: i32) -> Result<()> {
        // SAFETY: signals a child that was not waited for, so its id is still its own.
        let sent = unsafe { libc::kill(self.0.id() as i32, signal) };
        anyhow::ensure!(sent == 0, "cannot signal QEMU: {}", io::Error::last_os_error());
        Ok(())
    }

    /// The lines from the second serial line, without line ends.
    fn lines(&mut self) -> Result<Receiver<Vec<u8>>> {
        let stdout = self.0.stdout.take().context("QEMU's standard output was already taken")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n') {
                // The receiver or QEMU is gone: nothing left to do.
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(receiver)
    }

    /// Waits for the machine to power off by itself.
    fn wait(&mut self, at_most: Duration) {
        let started = Instant::now();
        while started.elapsed() < at_most && matches!(self.0.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Fails only if QEMU has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Copies the command's output to standard output, byte for byte.
#[derive(Default)]
struct Output {
    /// The newline of the last line is held back: `init.sh` adds one before the marker.
    newline_pending: bool,
}

impl Output {
    fn show(&mut self, line: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.newline_pending {
            out.write_all(b"\n")?;
        }
        self.newline_pending = true;
        out.write_all(line)?;
        out.flush()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.newline_pending {
            // The machine failed: start the error on a new line. Ignore a closed standard output.
            let _ = writeln!(io::stdout());
        }
    }
}

/// The console log, read as it grows.
struct Console {
    path: PathBuf,
    file: Option<File>,
    text: Vec<u8>,
    /// Start of the last, incomplete line.
    checked: usize,
}

impl Console {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, text: Vec::new(), checked: 0 }
    }

    /// The first new line that reports a kernel in trouble.
    fn trouble(&mut self) -> Option<String> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        self.file.as_mut()?.read_to_end(&mut self.text).ok()?;
        let fresh = &self.text[self.checked..];
        let complete = fresh.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.checked += complete;
        let fresh = String::from_utf8_lossy(&fresh[..complete]);
        let found = fresh.lines().find(|line| TROUBLE.iter().any(|message| line.contains(message)));
        found.map(|line| line.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_reported_once_its_line_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let mut console = Console::new(path.clone());
        assert_eq!(console.trouble(), None, "no file yet");

        let mut log = File::create(&path).unwrap();
        log.write_all(b"Linux version 6\r\nwatchdog: BUG: soft lock").unwrap();
        assert_eq!(console.trouble(), None);
        log.write_all(b"up - CPU#1 stuck\r\n").unwrap();
        assert_eq!(console.trouble().as_deref(), Some("watchdog: BUG: soft lockup - CPU#1 stuck"));
        assert_eq!(console.trouble(), None, "reported already");
    }
}
