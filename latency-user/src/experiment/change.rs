//! A change of knobs: written, read back, put back. Nobody else's value is overwritten.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::{knob::Knob, tuning::Wanted};

/// A knob with the value it had and the one that is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The knob.
    pub knob: Knob,
    /// What it held before.
    pub old: String,
    /// What is tried.
    pub new: String,
}

/// What became of a knob that was to be put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It holds the old value, written now or there already.
    Original,
    /// It held this value, neither the old nor the new one: someone else set it, and it stays.
    Foreign(String),
    /// It went away with its network namespace or device.
    Gone,
    /// It could not be put back.
    Failed(String),
}

/// A knob that does not hold its old value, although it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong, and where.
    pub text: String,
    /// Whether it is worth while to try again: nobody else decided on the value.
    pub may_retry: bool,
}

/// Puts knobs back and tells which do not hold their old values.
pub fn restore(saved: &[Saved]) -> Vec<Complaint> {
    saved.iter().filter_map(|one| one.complaint(&one.restore())).collect()
}

/// All knobs of an experiment.
#[derive(Clone, Debug)]
pub struct Change {
    saved: Vec<Saved>,
}

/// A change that is in place. It is put back when this is dropped, by a panic too.
pub struct Applied<'a> {
    change: &'a Change,
    in_place: bool,
}

impl Saved {
    /// Puts the old value back, unless someone else has changed it.
    pub fn restore(&self) -> Restored {
        let now = match self.knob.read() {
            Ok(now) => now,
            Err(_) if self.knob.is_gone() || !self.knob.path.exists() => return Restored::Gone,
            Err(error) => return Restored::Failed(format!("{error:#}")),
        };
        if self.knob.is_same(&now, &self.old) {
            return Restored::Original;
        }
        if !self.knob.is_same(&now, &self.new) {
            return Restored::Foreign(now);
        }
        match self.knob.write(&self.old).and_then(|()| self.knob.read()) {
            Ok(now) if self.knob.is_same(&now, &self.old) => Restored::Original,
            Ok(now) => Restored::Failed(format!("wrote {:?}, reads {now:?}", self.old)),
            Err(error) => Restored::Failed(format!("{error:#}")),
        }
    }

    /// What is wrong with it then; `None`: all is well.
    fn complaint(&self, restored: &Restored) -> Option<Complaint> {
        let (path, old) = (self.knob.path.display(), &self.old);
        let text = match restored {
            Restored::Original | Restored::Gone => return None,
            Restored::Foreign(now) => format!(
                "{path} holds {now:?}, which this experiment did not set: it stays; it held \
                 {old:?} before"
            ),
            Restored::Failed(why) => format!("{path} is not {old:?} again: {why}"),
        };
        Some(Complaint { text, may_retry: matches!(restored, Restored::Failed(_)) })
    }
}

impl Change {
    /// Reads what the knobs hold now.
    ///
    /// # Errors
    ///
    /// When one cannot be read.
    pub fn new(wanted: Vec<Wanted>) -> Result<Self> {
        let save = |Wanted { knob, value }| Ok(Saved { old: knob.read()?, knob, new: value });
        Ok(Self { saved: wanted.into_iter().map(save).collect::<Result<_>>()? })
    }

    /// The knobs with both values.
    pub fn saved(&self) -> &[Saved] {
        &self.saved
    }

    /// Writes the new values and reads them back. What was written before an error is put back.
    ///
    /// # Errors
    ///
    /// When someone else changed a knob meanwhile, or the kernel refuses or alters a value.
    pub fn apply(&self) -> Result<Applied<'_>> {
        for one in &self.saved {
            let now = one.knob.read()?;
            if !one.knob.is_same(&now, &one.old) {
                let path = one.knob.path.display();
                bail!("{path} was {:?} and is {now:?} now: someone else changed it", one.old);
            }
        }
        let applied = Applied { change: self, in_place: true };
        for Saved { knob, old, new } in &self.saved {
            knob.write(new)?;
            let now = knob.read()?;
            if !knob.is_same(&now, new) {
                // Not what was written, so it would be taken for someone else's and left.
                knob.write(old)?;
                bail!("{}: wrote {new:?}, the kernel made it {now:?}", knob.path.display());
            }
        }
        Ok(applied)
    }

    /// Puts everything back and tells what does not hold its old value.
    pub fn restore(&self) -> Vec<Complaint> {
        restore(&self.saved)
    }
}

impl Applied<'_> {
    /// Puts everything back.
    ///
    /// # Errors
    ///
    /// When a knob does not hold its old value then.
    pub fn revert(mut self) -> Result<()> {
        self.in_place = false;
        match &self.change.restore()[..] {
            [] => Ok(()),
            complaints => {
                let texts: Vec<&str> = complaints.iter().map(|one| one.text.as_str()).collect();
                bail!("{}", texts.join("; "))
            }
        }
    }

    /// Leaves the new values in place.
    pub fn keep(mut self) {
        self.in_place = false;
    }
}

impl Drop for Applied<'_> {
    fn drop(&mut self) {
        if self.in_place {
            for complaint in self.change.restore() {
                log::error!("{}", complaint.text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::experiment::knob::Form;

    fn change(path: &Path, value: &str) -> Change {
        let knob = Knob { path: path.into(), netns: None, form: Form::Words };
        Change::new(vec![Wanted { knob, value: value.into() }]).unwrap()
    }

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("knob");
        fs::write(&path, "1\t2\n").unwrap();
        (folder, path)
    }

    #[test]
    fn a_change_is_put_back() {
        let (_folder, path) = file();
        let change = change(&path, "3 4");
        let applied = change.apply().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "3 4");
        applied.revert().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1 2");
    }

    /// The kernel cuts the name of a task, as a driver may round a setting.
    #[test]
    fn what_the_kernel_alters_is_put_back() {
        let comm = Path::new("/proc/self/comm");
        let before = fs::read_to_string(comm).unwrap();
        let change = change(comm, "longer-than-a-name-can-be");
        let error = format!("{:#}", change.apply().err().unwrap());
        assert!(error.contains("the kernel made it \"longer-than-a-n\""), "{error}");
        assert_eq!(fs::read_to_string(comm).unwrap(), before);
    }

    #[test]
    fn a_panic_puts_it_back() {
        let (_folder, path) = file();
        let change = change(&path, "3 4");
        let panicked = std::panic::catch_unwind(|| {
            let _applied = change.apply().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "3 4");
            panic!("in the middle of it");
        });
        assert!(panicked.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "1 2");
    }

    #[test]
    fn what_someone_else_set_stays() {
        let (_folder, path) = file();
        let change = change(&path, "3 4");
        let applied = change.apply().unwrap();
        fs::write(&path, "9 9").unwrap();
        let error = format!("{:#}", applied.revert().unwrap_err());
        assert!(error.contains("\"9 9\"") && error.contains("\"1 2\""), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "9 9");
        assert!(change.apply().is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "9 9");
    }

    #[test]
    fn a_knob_that_is_gone_is_no_complaint() {
        let (folder, path) = file();
        let change = change(&path, "3 4");
        let applied = change.apply().unwrap();
        drop(folder);
        applied.revert().unwrap();
    }
}
