//! CPUs that come online during a run. The programs run there too, but the sampling clock does not.

use std::path::Path;

use anyhow::Result;

use super::Local;
use crate::{
    host::cpu::cpus,
    measure::{Notify, Sinks},
    model::note::Note,
};

/// The CPUs with a sampling clock, and those without one.
#[derive(Debug)]
pub(super) struct CpuWatch {
    /// Online since the start; `None`: nothing is sampled, or the list cannot be read.
    sampled: Option<Vec<u32>>,
    not_sampled: Vec<u32>,
}

impl CpuWatch {
    pub(super) fn new(sample_hz: u64) -> Self {
        let online = (sample_hz > 0).then(|| cpus::online(Path::new("/")).ok()).flatten();
        Self { sampled: online, not_sampled: Vec::new() }
    }

    /// Takes the CPUs that are online now. Returns whether others than before have no clock.
    fn changed(&mut self, online: &[u32]) -> bool {
        let Some(sampled) = &mut self.sampled else { return false };
        // The clock of a CPU that goes offline ends with it.
        sampled.retain(|cpu| online.contains(cpu));
        let not_sampled: Vec<u32> =
            online.iter().copied().filter(|cpu| !sampled.contains(cpu)).collect();
        let is_more = not_sampled.iter().any(|cpu| !self.not_sampled.contains(cpu));
        self.not_sampled = not_sampled;
        is_more
    }
}

impl Local {
    /// Tells of CPUs that came online since the last call.
    pub(super) fn check_cpus(&mut self, sinks: Sinks<'_, '_>, notify: Notify<'_>) -> Result<()> {
        if self.cpu_watch.sampled.is_none() {
            return Ok(());
        }
        let Ok(online) = cpus::online(Path::new("/")) else { return Ok(()) };
        if !self.cpu_watch.changed(&online) {
            return Ok(());
        }
        let note = Note::CpusNotSampled { cpus: self.cpu_watch.not_sampled.clone() };
        let notes = &mut self.run.sampling.notes;
        notes.retain(|other| !matches!(other, Note::CpusNotSampled { .. }));
        notes.push(note.clone());
        for sink in sinks.iter_mut() {
            sink.run_changed(&self.run)?;
        }
        notify(None, &note);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_was_away_has_no_clock_any_more() {
        let mut watch = CpuWatch { sampled: Some(vec![0, 1]), not_sampled: Vec::new() };
        assert!(!watch.changed(&[0, 1]));
        assert!(!watch.changed(&[0]));
        assert!(watch.changed(&[0, 1]));
        assert!(!watch.changed(&[0, 1]));
        assert!(watch.changed(&[0, 1, 7]));
        assert_eq!(watch.not_sampled, [1, 7]);
        assert!(!watch.changed(&[0, 1]));
        assert_eq!(watch.not_sampled, [1]);
        let mut none = CpuWatch { sampled: None, not_sampled: Vec::new() };
        assert!(!none.changed(&[0, 1, 2]));
    }
}
