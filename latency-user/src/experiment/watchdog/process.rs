//! The watchdog's own process.

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::answer;
use crate::experiment::{change::RestoreFailure, journal::JournalDirectory};

/// An order of the experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// The setting is changed, and the next order follows within this time.
    Within(Duration),
    /// The setting is as it was.
    Rest,
    /// Nothing is left to put back.
    Dismiss,
}

/// Runs as the watchdog: reports on `answers` that it is ready, then follows `orders` until they
/// end. Returns what could not be put back.
///
/// # Errors
///
/// When the journal cannot be removed.
pub fn watch(
    directory: &Path,
    name: &str,
    answers: &mut dyn Write,
    orders: &mut (impl Read + AsFd),
) -> Result<Vec<RestoreFailure>> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE] {
        // SAFETY: ignoring a signal touches no memory.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let journals = JournalDirectory::new(directory);
    let mut say = |answer: u8| answers.write_all(&[answer]).and_then(|()| answers.flush());
    say(answer::READY).context("report that the watchdog is ready")?;
    let mut due: Option<Instant> = None;
    let mut text = Vec::new();
    loop {
        if !wait(orders, due) {
            // The experiment does not run. It holds the journal's lock, and reads the answer before
            // it changes anything again.
            let _ = say(answer::PUTS_BACK);
            if let Some(entry) = journals.peek(name).filter(|entry| entry.unknown().is_none()) {
                for failure in entry.restore() {
                    log::error!("{}", failure.text);
                }
            }
            due = None;
            continue;
        }
        let mut bytes = [0; 256];
        let length = match orders.read(&mut bytes) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        text.extend_from_slice(&bytes[..length]);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            match parse(&line) {
                Some(Order::Within(time)) => due = Some(Instant::now() + time),
                Some(Order::Rest) => due = None,
                Some(Order::Dismiss) => {
                    let _ = say(answer::DISMISSED);
                    return Ok(Vec::new());
                }
                None => {}
            }
        }
    }
    let Some(journal) = journals.take(name) else { return Ok(Vec::new()) };
    let failures = match &journal.entry {
        // It stays for `--undo`, which reports it.
        Some(entry) if entry.unknown().is_some() => return Ok(Vec::new()),
        Some(entry) => entry.restore(),
        None if journal.is_torn => Vec::new(),
        // Of another version, or unreadable: it stays for `--undo`, which reports it.
        None => return Ok(Vec::new()),
    };
    if failures.is_empty() {
        journal.done()?;
    }
    Ok(failures)
}

/// Waits until `orders` can be read. Returns false if `due` comes first.
fn wait(orders: &impl AsFd, due: Option<Instant>) -> bool {
    loop {
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(-1, |left| i32::try_from(left.as_millis() + 1).unwrap_or(-1));
        let mut poll =
            libc::pollfd { fd: orders.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry, for the time of the call.
        let ready = unsafe { libc::poll(&mut poll, 1, timeout) };
        if ready > 0 {
            return true;
        }
        if ready == 0 && due.is_some_and(|due| Instant::now() >= due) {
            return false;
        }
    }
}

fn parse(line: &[u8]) -> Option<Order> {
    let line = str::from_utf8(line).ok()?.trim();
    match line.split_once(' ') {
        Some(("within", milliseconds)) => {
            Some(Order::Within(Duration::from_millis(milliseconds.parse().ok()?)))
        }
        None if line == "rest" => Some(Order::Rest),
        None if line == "dismiss" => Some(Order::Dismiss),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read() {
        assert_eq!(parse(b"within 1500\n"), Some(Order::Within(Duration::from_millis(1500))));
        assert_eq!(parse(b"rest\n"), Some(Order::Rest));
        assert_eq!(parse(b"dismiss\n"), Some(Order::Dismiss));
        for line in [&b"within\n"[..], b"within x\n", b"\xff\n", b"\n"] {
            assert_eq!(parse(line), None);
        }
    }

    #[test]
    fn a_missed_time_is_noticed_and_a_kept_one_is_not() {
        let (reader, mut writer) = io::pipe().unwrap();
        assert!(!wait(&reader, Some(Instant::now() + Duration::from_millis(10))));
        writer.write_all(b"rest\n").unwrap();
        assert!(wait(&reader, Some(Instant::now() + Duration::from_secs(60))));
        assert!(wait(&reader, None));
    }
}
