//! The sink that writes a recording.

use std::{
    io::{self, ErrorKind, Write},
    path::Path,
};

use anyhow::Result;

use super::{
    pacing::Stop,
    sink::{Finished, Measured, Sink},
};
use crate::{
    host::settings,
    model::{note::Note, run::Run, summary::Summary},
    recording::writer::Writer,
};

/// Writes all measured data to a file. A write error (such as a full disk) does not end the
/// measurement: it is reported at once, and by [`Self::has_failed`] afterwards.
pub struct RecordingSink {
    writer: Option<Writer>,
    /// Interfaces whose settings are recorded (empty: all); `None`: no settings are recorded.
    settings_of: Option<Vec<String>>,
    failed: bool,
    /// The lines that did not reach the reader of a stream.
    dropped_lines: Option<Box<dyn Fn() -> u64>>,
    is_closed: bool,
    notes: Vec<Note>,
}

impl RecordingSink {
    /// Opens the file with the permissions `mode`, so that path errors show before measuring. The
    /// settings of the machine and of `ifaces` (empty: of all interfaces) are recorded too.
    ///
    /// # Errors
    ///
    /// When the file cannot be created; the error names it.
    pub fn create(path: &Path, mode: u32, ifaces: &[String]) -> Result<Self> {
        Ok(Self { settings_of: Some(ifaces.to_vec()), ..Self::without_settings(path, mode)? })
    }

    /// As [`Self::create`], for a run that changes settings.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn without_settings(path: &Path, mode: u32) -> Result<Self> {
        Ok(Self::of(Writer::create_with(path, mode)?))
    }

    /// Records to a reader of `out`, with the settings of `ifaces`. The run ends when the reader has
    /// gone. `dropped_lines` counts what it did not read in time.
    pub fn to_stream(
        out: Box<dyn Write + Send>,
        ifaces: &[String],
        dropped_lines: impl Fn() -> u64 + 'static,
    ) -> Self {
        Self {
            settings_of: Some(ifaces.to_vec()),
            dropped_lines: Some(Box::new(dropped_lines)),
            ..Self::of(Writer::to_stream(out, "to standard output"))
        }
    }

    fn of(writer: Writer) -> Self {
        Self {
            writer: Some(writer),
            settings_of: None,
            failed: false,
            dropped_lines: None,
            is_closed: false,
            notes: Vec::new(),
        }
    }

    /// Whether the recording is incomplete.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    fn write(&mut self, action: impl FnOnce(&mut Writer) -> Result<()>) {
        let Some(writer) = &mut self.writer else { return };
        if let Err(error) = action(writer) {
            self.fail(&error);
            self.writer = None;
        }
    }

    fn fail(&mut self, error: &anyhow::Error) {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if self.dropped_lines.is_some() && kind == Some(ErrorKind::BrokenPipe) {
            self.is_closed = true;
            return;
        }
        self.notes.push(Note::RecordingEnded { error: format!("{error:#}") });
        self.failed = true;
    }
}

impl Sink for RecordingSink {
    fn start(&mut self, run: &Run) -> Result<()> {
        // A header that cannot be written is an error: nothing was measured yet.
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.start(run)?;
        if let Some(ifaces) = &self.settings_of {
            match settings::read(Path::new("/"), ifaces) {
                Ok(settings) => writer.settings(&settings)?,
                Err(error) => {
                    self.notes.push(Note::SettingsUnread { error: format!("{error:#}") });
                }
            }
        }
        Ok(())
    }

    fn run_changed(&mut self, run: &Run) -> Result<()> {
        self.write(|writer| writer.header(run));
        Ok(())
    }

    fn interval(&mut self, interval: &Measured<'_>) -> Result<Option<Stop>> {
        self.write(|writer| writer.interval(interval.all));
        Ok(self.is_closed.then_some(Stop::Closed))
    }

    fn finish(&mut self, end: &Finished<'_>) -> Result<()> {
        let dropped_output_lines = self.dropped_lines.as_ref().map(|count| count());
        let summary = &Summary { dropped_output_lines, ..end.summary.clone() };
        if let Some(Err(error)) = self.writer.take().map(|writer| writer.finish(summary)) {
            self.fail(&error);
        }
        Ok(())
    }

    fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }
}
