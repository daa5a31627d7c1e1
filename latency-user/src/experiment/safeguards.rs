//! What puts a setting back whatever happens to this process: the journal and the watchdog.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{
    change::{ChangeStep, SavedValue},
    journal::{Journal, JournalDirectory, JournalEntry},
    watchdog::{Health, Watchdog},
};
use crate::model::note::Note;

/// How much longer than announced a step may take, at least.
const GRACE: Duration = Duration::from_secs(3);

/// How often a watchdog is replaced.
const MOST_REPLACED: u32 = 3;

/// Protects the setting. Fields drop in this order: the journal is unlocked before the watchdog
/// takes it.
pub(super) struct Safeguards {
    journal: Option<Journal>,
    watchdog: Option<Watchdog>,
    directory: JournalDirectory,
    /// Until when the setting may be changed without another word; `None`: it is not changed.
    due: Option<Instant>,
    /// How much longer than announced a step may take.
    grace: Duration,
    replaced: u32,
    /// Why the experiment must end.
    failed: Option<Note>,
}

impl Safeguards {
    /// Writes the journal and starts the watchdog.
    ///
    /// # Errors
    ///
    /// As [`JournalDirectory::begin`] and [`Watchdog::start`].
    pub(super) fn start(directory: &JournalDirectory, entry: &JournalEntry) -> Result<Self> {
        let journal = directory.begin(entry)?;
        let watchdog = Watchdog::start(directory, &journal)?;
        Ok(Self {
            journal: Some(journal),
            watchdog: Some(watchdog),
            directory: directory.clone(),
            due: None,
            grace: GRACE,
            replaced: 0,
            failed: None,
        })
    }

    /// Records a step of the change.
    ///
    /// # Errors
    ///
    /// When the journal cannot be written.
    pub(super) fn note(&mut self, step: ChangeStep, saved: &[SavedValue]) -> Result<()> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.note(step, saved))
    }

    /// A step of the experiment took so much longer than its length: measuring has to start and
    /// end, too.
    pub(super) fn took_longer(&mut self, by: Duration) {
        self.grace = self.grace.max(4 * by);
    }

    /// The setting is changed, and stays so for a step of this length.
    pub(super) fn expect_within(&mut self, step: Duration) {
        let time = step + self.grace;
        self.due = Some(Instant::now() + time);
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.expect_within(time);
        }
    }

    /// The setting is as it was.
    pub(super) fn rest(&mut self) {
        self.due = None;
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.rest();
        }
    }

    /// Whether the setting is protected. Replaces a watchdog that is gone.
    pub(super) fn hold(&mut self) -> bool {
        if self.failed.is_some() {
            return false;
        }
        let Some(watchdog) = &mut self.watchdog else { return true };
        match watchdog.health() {
            Health::Watching => return true,
            Health::PutBack => self.failed = Some(Note::PutBackByWatchdog),
            Health::Gone => self.replace(),
        }
        self.failed.is_none()
    }

    /// Why the experiment must end; `None`: it need not.
    pub(super) fn failed(&self) -> Option<&Note> {
        self.failed.as_ref()
    }

    fn replace(&mut self) {
        let pid = self.watchdog.as_ref().map_or(0, Watchdog::pid);
        if let Some(gone) = self.watchdog.take() {
            gone.kill();
        }
        let Some(journal) = &self.journal else { return };
        self.replaced += 1;
        let started = match self.replaced {
            ..=MOST_REPLACED => Watchdog::start(&self.directory, journal),
            _ => Err(anyhow::anyhow!("it was replaced {MOST_REPLACED} times already")),
        };
        match started {
            Ok(mut watchdog) => {
                log::warn!(
                    "the watchdog (process {pid}) ended or was stopped: process {} replaces it",
                    watchdog.pid()
                );
                if let Some(due) = self.due {
                    watchdog.expect_within(due.saturating_duration_since(Instant::now()));
                }
                self.watchdog = Some(watchdog);
            }
            Err(error) => {
                self.failed = Some(Note::WatchdogLost { error: format!("{error:#}") });
            }
        }
    }

    /// Ends the experiment with the new setting kept, or the original one put back.
    ///
    /// # Errors
    ///
    /// When a knob does not hold the value that it should.
    pub(super) fn end(mut self, kept: bool) -> Result<()> {
        let entry = self.journal.as_ref().and_then(|journal| journal.entry.as_ref());
        let failures = entry.filter(|_| !kept).map(JournalEntry::restore).unwrap_or_default();
        if failures.iter().any(|failure| failure.may_retry) {
            // The journal stays, and the watchdog tries again.
            let texts: Vec<String> = failures.into_iter().map(|failure| failure.text).collect();
            bail!("{}; `latency-user experiment --undo` tries again", texts.join("; "));
        }
        if let Some(journal) = self.journal.take() {
            journal.done()?;
        }
        let last = self.watchdog.take().map(Watchdog::dismiss);
        if kept && last == Some(Health::PutBack) {
            bail!("the change was to be kept: {}", Note::PutBackByWatchdog);
        }
        if let Some(failure) = failures.first() {
            bail!("{}", failure.text);
        }
        Ok(())
    }
}
