//! One virtual machine under QEMU: started, watched, always ended.
//!
//! Owns QEMU's arguments, the choice between KVM and emulation, the deadline and the signs of a
//! kernel in trouble. The machine's second serial line carries the command's output between the
//! marker lines that `init.sh` writes; its first, the console, goes to a file that is read along.

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

use super::cache;
use crate::process;

const READY: &[u8] = b"xtask-vm: ready";
const EXIT: &[u8] = b"xtask-vm: exit ";
/// A kernel that says one of these will not come to a good end.
const TROUBLE: [&str; 7] = [
    "Kernel panic",
    "BUG: unable to handle",
    "general protection fault",
    "self-detected stall on CPU",
    "detected stalls on CPUs",
    "BUG: soft lockup",
    "hard LOCKUP",
];
/// Nothing here makes softirqs run otherwise than on a real machine; mitigations cost most where
/// everything is emulated.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off";
/// With KVM that works, a machine is ready within 3 s; where /dev/kvm opens but does not work,
/// QEMU hangs for ever.
const KVM_READY: Duration = Duration::from_secs(20);
/// How often the console and the clock are looked at while the command is silent.
const WATCH: Duration = Duration::from_millis(200);
/// How long a machine that has told its exit status may take to power off.
const POWER_OFF: Duration = Duration::from_secs(10);
/// How long a kernel in trouble may go on writing about it.
const LAST_WORDS: Duration = Duration::from_secs(1);
const TAIL_LINES: usize = 40;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Acceleration {
    Kvm,
    Emulation,
}

/// What to boot, and where its files go.
pub(crate) struct Machine<'a> {
    pub(crate) image: &'a Path,
    pub(crate) release: &'a str,
    pub(crate) initramfs: &'a Path,
    /// Receives the console's text and QEMU's own words.
    pub(crate) directory: &'a Path,
    pub(crate) deadline: Duration,
}

/// How far a machine got.
enum End {
    /// The command ended with this status.
    Status(u8),
    /// It never reached the command.
    NotReady(String),
    /// It was ended, or ended itself, while the command ran.
    Died(String),
}

impl Machine<'_> {
    /// Boots with KVM if that works here, else emulated, and returns the command's exit status.
    pub(crate) fn run(&self, watch: &mut dyn FnMut(&str)) -> Result<u8> {
        let mut end = None;
        if kvm_may_work() {
            match self.boot(Acceleration::Kvm, watch)? {
                End::NotReady(why) => {
                    process::step(&format!("KVM does not work here ({why}): emulating"));
                    // Only a hint for the next boot: not worth failing for.
                    let _ =
                        fs::write(kvm_is_broken(), "remove this file to have KVM tried again\n");
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
                    output.line_end_due = false;
                    let status = String::from_utf8_lossy(&line[EXIT.len()..]).trim().parse();
                    let status = status.context("the machine told no exit status")?;
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
                Some(line) => {
                    output.show(&line)?;
                    watch(&String::from_utf8_lossy(&line));
                }
                None => {}
            }
            if let Some(trouble) = console.trouble() {
                // What follows the line, the call trace above all, belongs to the report.
                thread::sleep(LAST_WORDS);
                return Ok(if ready { End::Died(trouble) } else { End::NotReady(trouble) });
            }
            if !ready && started.elapsed() > ready_deadline {
                let seconds = ready_deadline.as_secs();
                return Ok(End::NotReady(format!("not ready after {seconds} s")));
            }
            if started.elapsed() > self.deadline {
                let why = format!("its command still ran after {} s", self.deadline.as_secs());
                return Ok(End::Died(why));
            }
        }
    }

    fn start(&self, acceleration: Acceleration) -> Result<Qemu> {
        let several_queues = may_make_taps();
        let qemu = process::need("qemu-system-x86_64")?;
        let mut command = match several_queues {
            // A network namespace of its own: nobody is at the other end of its tap device.
            true => {
                let mut unshare = Command::new(process::need("unshare")?);
                unshare.arg("--net").arg(qemu);
                unshare
            }
            false => Command::new(qemu),
        };
        match acceleration {
            Acceleration::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
            // One thread: with one for each processor, a processor can still run the breakpoint that
            // another has just taken out of the kernel's code (attaching a tracepoint puts one
            // there for a moment), and the kernel panics with "int3: 0000".
            Acceleration::Emulation => command.args(["-accel", "tcg,thread=single", "-cpu", "max"]),
        };
        command.args(["-smp", "2", "-m", "2048", "-no-reboot", "-nodefaults"]);
        command.args(["-display", "none", "-monitor", "none"]);
        // A NIC with real interrupts; user-mode networking has no need of root on this side.
        command.args(["-netdev", "user,id=net0,restrict=on"]);
        command.args(["-device", "virtio-net-pci,netdev=net0"]);
        // One whose driver rounds the sizes of its rings.
        command.args(["-netdev", "user,id=net1,restrict=on"]);
        command.args(["-device", "vmxnet3,netdev=net1"]);
        if several_queues {
            command.args(["-netdev", "tap,id=net2,queues=2,vhost=off,script=no,downscript=no"]);
            // Two vectors for each pair of queues, one for control and one for changes.
            command.args(["-device", "virtio-net-pci,netdev=net2,mq=on,vectors=6"]);
        }
        command.arg("-serial").arg(format!("file:{}", self.console().display()));
        command.args(["-serial", "stdio"]);
        command.arg("-kernel").arg(self.image).arg("-initrd").arg(self.initramfs);
        command.args(["-append", KERNEL_ARGUMENTS]);

        let words = File::create(self.words())
            .with_context(|| format!("cannot write {}", self.words().display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(words);
        process::die_with_parent(&mut command, libc::SIGKILL);
        let child = command.spawn().context("cannot start qemu-system-x86_64")?;
        Ok(Qemu(child))
    }

    fn console(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    fn words(&self) -> PathBuf {
        self.directory.join("qemu.log")
    }

    /// Shows what the machine said last and turns `why` into an error.
    fn failure(&self, why: &str) -> anyhow::Error {
        for log in [self.words(), self.console()] {
            let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
            let lines: Vec<_> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
                eprintln!("vm: {line}");
            }
        }
        // Large, and of no use to whoever looks for the cause.
        let _ = fs::remove_file(self.initramfs);
        anyhow::anyhow!(
            "the virtual machine with Linux {} failed: {why} (all its console said: {})",
            self.release,
            self.console().display()
        )
    }
}

/// Whether the machine can have a NIC with several queues of virtio: that takes a tap device, and
/// root.
fn may_make_taps() -> bool {
    // SAFETY: the call takes nothing and cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    is_root && Path::new("/dev/net/tun").exists()
}

/// Marks that KVM was tried on this machine and did not work.
fn kvm_is_broken() -> PathBuf {
    cache().join("kvm-does-not-work")
}

fn kvm_may_work() -> bool {
    let opened = File::options().read(true).write(true).open("/dev/kvm");
    opened.is_ok() && !kvm_is_broken().exists()
}

/// A running QEMU; ended, whatever happens, when it goes out of scope.
struct Qemu(Child);

impl Qemu {
    /// The lines of the second serial line, without their ends.
    fn lines(&mut self) -> Result<Receiver<Vec<u8>>> {
        let stdout = self.0.stdout.take().context("QEMU's standard output is taken already")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n') {
                // Nobody listens any more, or QEMU is gone: either way the work is done.
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(receiver)
    }

    /// Gives the machine time to power off by itself.
    fn wait(&mut self, at_most: Duration) {
        let started = Instant::now();
        while started.elapsed() < at_most && matches!(self.0.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Fails only if QEMU has ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The command's output on its way to ours, byte for byte.
#[derive(Default)]
struct Output {
    /// The end of the last line is held back: `init.sh` puts one of its own before the marker.
    line_end_due: bool,
}

impl Output {
    fn show(&mut self, line: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.line_end_due {
            out.write_all(b"\n")?;
        }
        self.line_end_due = true;
        out.write_all(line)?;
        out.flush()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.line_end_due {
            // The machine failed: what is said about that begins on a line of its own, unless
            // nobody reads ours any more.
            let _ = writeln!(io::stdout());
        }
    }
}

/// The console's text, read as it grows.
struct Console {
    path: PathBuf,
    file: Option<File>,
    text: Vec<u8>,
    /// Where the last line that was not complete yet begins.
    looked_at: usize,
}

impl Console {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, text: Vec::new(), looked_at: 0 }
    }

    /// The first line not seen before that tells of a kernel in trouble.
    fn trouble(&mut self) -> Option<String> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        self.file.as_mut()?.read_to_end(&mut self.text).ok()?;
        let fresh = &self.text[self.looked_at..];
        let complete = fresh.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.looked_at += complete;
        let fresh = String::from_utf8_lossy(&fresh[..complete]);
        let found = fresh.lines().find(|line| TROUBLE.iter().any(|sign| line.contains(sign)));
        found.map(|line| line.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_seen_once_its_line_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let mut console = Console::new(path.clone());
        assert_eq!(console.trouble(), None, "no file yet");

        let mut log = File::create(&path).unwrap();
        log.write_all(b"Linux version 6\r\nwatchdog: BUG: soft lock").unwrap();
        assert_eq!(console.trouble(), None);
        log.write_all(b"up - CPU#1 stuck\r\n").unwrap();
        assert_eq!(console.trouble().as_deref(), Some("watchdog: BUG: soft lockup - CPU#1 stuck"));
        assert_eq!(console.trouble(), None, "told already");
    }
}
