//! The watchdog: a process that puts the setting back if the experiment ends without dismissing it,
//! or does not run for longer than it announced.
//!
//! It is another process of this program, in its own session, and ignores the signals that a
//! terminal or a service manager sends to all processes. The end of the pipe between the two shows
//! that the experiment died, whatever the cause. While a setting is changed, the experiment tells
//! how long its next step takes at most: an experiment that was stopped, or hangs, misses that.
//!
//! This file is the experiment's side; nothing in it waits long for the other process.

mod process;

use std::{
    env,
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

pub use self::process::watch;
use super::journal::{Journal, JournalDirectory};

/// The hidden command that a watchdog is started with.
pub const COMMAND: &str = "watch-experiment";

/// How long a watchdog may take to start, or to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(1);

/// How often the end of the process is looked for.
const TICK: Duration = Duration::from_millis(5);

/// What a watchdog answers, a byte each.
mod answer {
    /// It watches.
    pub(super) const READY: u8 = b'r';
    /// The announced time has passed: it puts the setting back.
    pub(super) const PUTS_BACK: u8 = b'p';
    /// It was dismissed and ends.
    pub(super) const DISMISSED: u8 = b'd';
}

/// What is known about a watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It watches.
    Watching,
    /// It has put the setting back, because this process did not run.
    PutBack,
    /// It has ended, or was stopped.
    Gone,
}

/// A running watchdog.
pub struct Watchdog {
    child: Child,
    orders: Option<ChildStdin>,
    answers: ChildStdout,
    has_put_back: bool,
}

impl Watchdog {
    /// Starts a watchdog for `journal` and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When the watchdog cannot be started.
    pub fn start(directory: &JournalDirectory, journal: &Journal) -> Result<Self> {
        let program = env::current_exe().context("find this program")?;
        Self::run(&program, directory.path(), &journal.name())
    }

    fn run(program: &Path, directory: &Path, journal: &str) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg(COMMAND).arg(directory).arg(journal);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: setsid takes nothing, touches no memory and may be called after fork.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                Ok(())
            });
        }
        let mut child = command.spawn().context("start the watchdog")?;
        let orders = child.stdin.take().context("the watchdog's input")?;
        let answers = child.stdout.take().context("the watchdog's output")?;
        for pipe in [orders.as_fd(), answers.as_fd()] {
            set_nonblocking(pipe).context("the watchdog's pipes")?;
        }
        let mut watchdog = Self { child, orders: Some(orders), answers, has_put_back: false };
        let ready = watchdog.await_answer(PATIENCE);
        ensure!(ready == Some(answer::READY), "the watchdog exited immediately");
        Ok(watchdog)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells that the setting is changed, and that the next order follows within this time.
    pub fn expect_within(&mut self, time: Duration) {
        self.order(&format!("within {}\n", time.as_millis()));
    }

    /// Tells that the setting is as it was.
    pub fn rest(&mut self) {
        self.order("rest\n");
    }

    /// What is known about it now.
    pub fn health(&mut self) -> Health {
        if self.answer() == Some(answer::PUTS_BACK) {
            self.has_put_back = true;
        }
        match (self.has_put_back, self.has_stopped()) {
            (true, _) => Health::PutBack,
            (false, true) => Health::Gone,
            (false, false) => Health::Watching,
        }
    }

    /// Dismisses it: nothing is left to put back. Returns what it was before.
    pub fn dismiss(mut self) -> Health {
        self.order("dismiss\n");
        let mut last = self.await_answer(ANSWER);
        if last == Some(answer::PUTS_BACK) {
            self.has_put_back = true;
            last = self.await_answer(ANSWER);
        }
        self.orders = None;
        match (self.has_put_back, last) {
            (true, _) => Health::PutBack,
            (false, Some(answer::DISMISSED)) => Health::Watching,
            (false, _) => {
                // It would put back nothing: the journal is gone. A stopped one would stay.
                let _ = self.child.kill();
                Health::Gone
            }
        }
    }

    /// Ends it at once.
    pub fn kill(mut self) {
        let _ = self.child.kill();
    }

    /// Sends a line. A watchdog that is gone is noticed by [`Self::health`].
    fn order(&mut self, line: &str) {
        if let Some(orders) = &mut self.orders {
            let _ = orders.write_all(line.as_bytes());
        }
    }

    /// The next answer, if there is one.
    fn answer(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.answers.read(&mut byte) {
            Ok(1) => Some(byte[0]),
            _ => None,
        }
    }

    /// Waits for the next answer; `None`: it ended, or the time has passed.
    fn await_answer(&mut self, most: Duration) -> Option<u8> {
        let end = Instant::now() + most;
        loop {
            let mut byte = [0];
            match self.answers.read(&mut byte) {
                Ok(0) => return None,
                Ok(_) => return Some(byte[0]),
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => {}
                Err(_) => return None,
            }
            self.wait_for_answer();
        }
    }

    /// Waits up to [`TICK`] until there is an answer, or the end of answers. Never panics, as a
    /// failed sleep does: this also runs during a panic.
    fn wait_for_answer(&self) {
        let (fd, events) = (self.answers.as_raw_fd(), libc::POLLIN);
        let mut poll = libc::pollfd { fd, events, revents: 0 };
        // SAFETY: one valid entry, for the time of the call.
        unsafe { libc::poll(&mut poll, 1, TICK.as_millis() as libc::c_int) };
    }

    /// Whether the process has ended, or was stopped by a signal.
    fn has_stopped(&self) -> bool {
        // SAFETY: all-zero bytes are a valid `siginfo_t`.
        let mut found: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `found` is valid for the call, and the child was not reaped.
        let result = unsafe { libc::waitid(libc::P_PID, self.child.id(), &mut found, flags) };
        // SAFETY: the kernel has filled in the fields of a child's state, or left zeros.
        result != 0 || unsafe { found.si_pid() } != 0
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Not dismissed, the watchdog puts back what is still changed.
        self.orders = None;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            if self.has_stopped() {
                break;
            }
            self.wait_for_answer();
        }
        // The journal stays for `--undo`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set_nonblocking(pipe: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: changes a flag of an open descriptor; no memory is touched.
    let result = unsafe {
        let flags = libc::fcntl(pipe.as_raw_fd(), libc::F_GETFL);
        libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
