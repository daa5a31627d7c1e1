//! Output whose reader cannot stop this process: a full pipe, a terminal that was halted.
//!
//! A thread of its own writes. While the reader follows, a write returns when it has everything, as
//! without the thread. When it does not, up to [`CAPACITY`] bytes wait for it; beyond that the
//! oldest whole lines are dropped, and counted.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::kernel::confine;

/// Bytes that wait for a slow reader.
const CAPACITY: usize = 1 << 20;

/// Bytes that are written at once.
const PIECE: usize = 1 << 14;

/// How long a write waits for a reader that has followed so far.
const COURTESY: Duration = Duration::from_millis(20);

/// How long the end of the output waits for a reader that takes nothing.
const PATIENCE: Duration = Duration::from_millis(400);

/// A writer that never waits long. Its clones write to the same queue.
#[derive(Clone)]
pub struct Unblocked {
    queue: Arc<Closing>,
    /// The start of a line.
    partial: Vec<u8>,
}

/// Ends the thread when the last writer is dropped.
struct Closing(Arc<Queue>);

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whole lines, or a part of one that was flushed.
    texts: VecDeque<Vec<u8>>,
    /// Their bytes.
    bytes: usize,
    /// Lines that are being written.
    writing: u64,
    /// Pieces written so far.
    pieces: u64,
    /// `pieces` when the reader was found not to follow.
    stuck_at: Option<u64>,
    dropped_lines: u64,
    error: Option<(io::ErrorKind, String)>,
    closed: bool,
}

impl Unblocked {
    /// Writes to `out`, on a new thread.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        let queue = Arc::new(Queue::default());
        let writing = Arc::clone(&queue);
        // Without the thread nothing is written, and all of it is counted as dropped.
        let _ = thread::Builder::new().name("output".into()).spawn(move || {
            // It needs none; a kernel that refuses leaves them.
            let _ = confine::drop_all();
            writing.write_to(out);
        });
        Self { queue: Arc::new(Closing(queue)), partial: Vec::new() }
    }

    /// Lines that were dropped so far.
    pub fn dropped_lines(&self) -> u64 {
        self.queue.0.lock().dropped_lines
    }

    /// Waits until everything is written, as long as the reader takes something. Returns whether it
    /// is; what is not counts as dropped.
    pub fn drain(&mut self) -> bool {
        let _ = self.flush();
        let queue = &self.queue.0;
        let mut state = queue.lock();
        while state.is_busy() {
            let before = state.pieces;
            state = queue.wait(state, PATIENCE);
            if state.is_busy() && state.pieces == before {
                state.dropped_lines += state.writing;
                state.drop_waiting(0);
                return false;
            }
        }
        true
    }

    fn push(&self, text: Vec<u8>) -> io::Result<()> {
        let queue = &self.queue.0;
        let mut state = queue.lock();
        if let Some((kind, text)) = &state.error {
            return Err(io::Error::new(*kind, text.clone()));
        }
        state.drop_waiting(CAPACITY.saturating_sub(text.len()));
        state.bytes += text.len();
        state.texts.push_back(text);
        queue.changed.notify_all();
        if state.stuck_at == Some(state.pieces) {
            return Ok(());
        }
        state.stuck_at = None;
        let (mut state, waited) = queue
            .changed
            .wait_timeout_while(state, COURTESY, |state| state.is_busy())
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            state.stuck_at = Some(state.pieces);
        }
        match &state.error {
            Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
            None => Ok(()),
        }
    }
}

impl Write for Unblocked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.partial.extend_from_slice(bytes);
        if let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') {
            let rest = self.partial.split_off(end + 1);
            let text = std::mem::replace(&mut self.partial, rest);
            self.push(text)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let text = std::mem::take(&mut self.partial);
        if text.is_empty() { Ok(()) } else { self.push(text) }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Writes what is queued until the last writer is dropped, or `out` fails.
    fn write_to(&self, mut out: impl Write) {
        let mut state = self.lock();
        loop {
            let Some(text) = state.texts.pop_front() else {
                if state.closed {
                    return;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.bytes -= text.len();
            state.writing = lines(&text);
            for piece in text.chunks(PIECE) {
                drop(state);
                let written = out.write_all(piece).and_then(|()| out.flush());
                state = self.lock();
                state.pieces += 1;
                if let Err(error) = written {
                    state.error = Some((error.kind(), error.to_string()));
                    state.texts.clear();
                    (state.writing, state.bytes) = (0, 0);
                    self.changed.notify_all();
                    return;
                }
                self.changed.notify_all();
            }
            state.writing = 0;
        }
    }
}

impl State {
    fn is_busy(&self) -> bool {
        self.writing > 0 || !self.texts.is_empty()
    }

    /// Drops the oldest texts that wait, until at most `most` bytes of them are left.
    fn drop_waiting(&mut self, most: usize) {
        while self.bytes > most
            && let Some(text) = self.texts.pop_front()
        {
            self.bytes -= text.len();
            self.dropped_lines += lines(&text);
        }
    }
}

/// The lines of a text; a part of one counts as one.
fn lines(text: &[u8]) -> u64 {
    (text.iter().filter(|byte| **byte == b'\n').count() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, PipeReader, PipeWriter},
        time::Instant,
    };

    use super::*;

    fn pipe() -> (PipeReader, Unblocked) {
        let (reader, writer): (PipeReader, PipeWriter) = io::pipe().unwrap();
        (reader, Unblocked::new(writer))
    }

    #[test]
    fn a_reader_that_follows_gets_everything() {
        let (reader, mut out) = pipe();
        let read = thread::spawn(move || {
            BufReader::new(reader).lines().collect::<io::Result<Vec<_>>>().unwrap()
        });
        for line in 0..20_000 {
            writeln!(out, "line {line} {:60}", "").unwrap();
        }
        out.write_all(b"no end").unwrap();
        assert!(out.drain());
        assert_eq!(out.dropped_lines(), 0);
        drop(out);
        let lines = read.join().unwrap();
        assert_eq!(lines.len(), 20_001);
        assert!(lines[19_999].starts_with("line 19999 "));
        assert_eq!(lines[20_000], "no end");
    }

    #[test]
    fn lines_that_are_not_read_are_dropped_and_counted() {
        let (reader, mut out) = pipe();
        let started = Instant::now();
        for line in 0..40_000 {
            writeln!(out, "line {line:09} {:45}", "").unwrap();
        }
        let dropped = out.dropped_lines();
        assert!(dropped > 20_000, "{dropped}");
        // The pipe holds 64 KiB, the queue 1 MiB; each line has 61 bytes.
        let before = started.elapsed();
        assert!(!out.drain());
        assert!(before.as_secs() < 20 && out.dropped_lines() > dropped);
        let never_written = out.dropped_lines();
        drop(out);
        let lines: Vec<String> =
            BufReader::new(reader).lines().map(Result::unwrap).filter(|l| l.len() == 60).collect();
        // What was being written may have arrived after it was counted.
        let sum = lines.len() as u64 + never_written;
        assert!((40_000..=40_001).contains(&sum), "{sum}");
        assert!(lines.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn the_newest_lines_survive() {
        let (reader, mut out) = pipe();
        for line in 0..40_000 {
            writeln!(out, "line {line:09} {:45}", "").unwrap();
        }
        let read = thread::spawn(move || {
            BufReader::new(reader).lines().map(Result::unwrap).last().unwrap()
        });
        assert!(out.drain());
        drop(out);
        assert!(read.join().unwrap().starts_with("line 000039999"));
    }

    #[test]
    fn a_reader_that_has_gone_is_an_error() {
        let (reader, mut out) = pipe();
        drop(reader);
        let mut write = || writeln!(out, "x").and_then(|()| writeln!(out, "y"));
        assert_eq!(write().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(out.drain());
    }
}
