//! One that follows the intervals: each gets a recording that starts with the next interval.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::window::Minute;
use crate::{
    measure::sink::{Measured, SoFar},
    model::{run::Run, settings::HostSettings},
    recording::{
        encoder::{self, EncodedInterval},
        format::{RUN, SETTINGS, SUMMARY},
    },
};

/// A client that has not read so many bytes is cut off.
const MOST_WAITING: usize = 8 << 20;

/// Clients at a time.
pub const MOST_CLIENTS: usize = 64;

/// The daemon's end of a client.
pub struct Client {
    id: u64,
    to: UnboundedSender<Bytes>,
    waiting: Arc<AtomicUsize>,
    following: Option<Following>,
    is_ending: bool,
}

/// The socket's end.
pub struct Reader {
    from: UnboundedReceiver<Bytes>,
    waiting: Arc<AtomicUsize>,
}

/// What is known of a client that has got its header.
struct Following {
    /// When its recording starts: not of the tracer's time, which starts anew with each tracer.
    began: Instant,
    /// The end of the interval before, counted from then.
    length: Duration,
    run: Run,
    so_far: Minute,
}

/// What becomes of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Stays,
    /// It has got everything, or has gone.
    Leaves,
    /// It does not read.
    CutOff,
}

/// Both ends of a new client.
pub fn new(id: u64) -> (Client, Reader) {
    let (to, from) = unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let reader = Reader { from, waiting: Arc::clone(&waiting) };
    (Client { id, to, waiting, following: None, is_ending: false }, reader)
}

impl Reader {
    /// The next piece; `None`: there is no more.
    pub async fn next(&mut self) -> Option<Bytes> {
        let piece = self.from.recv().await?;
        self.waiting.fetch_sub(piece.len(), Ordering::Relaxed);
        Some(piece)
    }
}

impl Client {
    /// Its name.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The tracer is started anew.
    pub fn restart(&mut self) {
        if let Some(following) = &mut self.following {
            following.so_far.restart();
        }
    }

    /// The next interval is its last.
    pub fn end(&mut self) {
        self.is_ending = true;
    }

    /// Passes on an interval; to a new client, which was not there when it began, the header of its
    /// recording instead.
    ///
    /// # Errors
    ///
    /// When something is no JSON.
    pub fn interval(
        &mut self,
        measured: &Measured<'_>,
        interval: &EncodedInterval,
        settings: Option<&HostSettings>,
    ) -> Result<Fate> {
        let Some(following) = &mut self.following else {
            let text = self.begin(measured, settings)?;
            return Ok(self.send(text));
        };
        let start = following.began.elapsed().saturating_sub(interval.duration());
        let start = start.max(following.length);
        following.length = start + interval.duration();
        let mut text = interval.text(start)?;
        following.so_far.add(measured.all, measured.so_far);
        if self.is_ending {
            let so_far = std::mem::take(&mut following.so_far).ended();
            let summary = so_far.summary(&following.run, following.length);
            text.push_str(&encoder::comment(SUMMARY, &summary)?);
        }
        let fate = self.send(text);
        Ok(if self.is_ending && fate == Fate::Stays { Fate::Leaves } else { fate })
    }

    fn begin(
        &mut self,
        measured: &Measured<'_>,
        settings: Option<&HostSettings>,
    ) -> Result<String> {
        let started_at = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
        let run = Run { started_at, duration_s: 0.0, ..measured.run.clone() };
        let mut text = encoder::header(&run)?;
        if let Some(settings) = settings {
            text.push_str(&encoder::comment(SETTINGS, settings)?);
        }
        let so_far = Minute::new(measured.so_far.cloned().unwrap_or_else(SoFar::default));
        let (began, length) = (Instant::now(), Duration::ZERO);
        self.following = Some(Following { began, length, run, so_far });
        Ok(text)
    }

    /// Passes on that the header of the run has changed.
    ///
    /// # Errors
    ///
    /// When it is no JSON.
    pub fn run_changed(&mut self, run: &Run) -> Result<Fate> {
        let Some(following) = &mut self.following else { return Ok(Fate::Stays) };
        following.run.change_to(run);
        let text = encoder::comment(RUN, &following.run)?;
        Ok(self.send(text))
    }

    fn send(&self, text: String) -> Fate {
        let length = text.len();
        let waiting = self.waiting.fetch_add(length, Ordering::Relaxed);
        if waiting > 0 && waiting + length > MOST_WAITING {
            return Fate::CutOff;
        }
        match self.to.send(Bytes::from(text)) {
            Ok(()) => Fate::Stays,
            Err(_) => Fate::Leaves,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_does_not_read_is_cut_off() {
        let (client, reader) = new(1);
        let piece = || "x".repeat(1 << 20);
        for _ in 0..8 {
            assert_eq!(client.send(piece()), Fate::Stays);
        }
        assert_eq!(client.send(piece()), Fate::CutOff);
        drop(reader);
        let (client, reader) = new(2);
        // A single interval may be longer than all that may wait.
        assert_eq!(client.send("x".repeat(MOST_WAITING + 1)), Fate::Stays);
        drop(reader);
        assert_eq!(client.send(piece()), Fate::CutOff);
    }
}
