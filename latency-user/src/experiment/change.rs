//! A change of knobs: written, read back, put back. Nobody else's value is overwritten.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{knob::Knob, tunable::Wanted};

/// A knob with the value it had and the one that is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The knob.
    pub knob: Knob,
    /// What it held before.
    pub old: String,
    /// What is tried. Once it is written: what it reads as, for a driver may round it.
    pub new: String,
}

/// How far the new values have got. Each step is on disk before it is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Nothing was written yet: a value that is not the old one is someone else's.
    Untouched,
    /// The new values are being written, and nobody knows yet what a driver makes of them: any
    /// value is taken for ours. Someone else's would have to come within these milliseconds.
    Writing,
    /// They were written and read back: a value that is neither the old nor the new one is
    /// someone else's. Journals of older versions have no steps and mean this one.
    #[default]
    Written,
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

/// Puts knobs back, the last one first, and tells which do not hold their old values.
pub fn restore(saved: &[Saved], step: Step) -> Vec<Complaint> {
    saved.iter().rev().filter_map(|one| one.complaint(&one.restore(step))).collect()
}

/// All knobs of an experiment.
#[derive(Clone, Debug)]
pub struct Change {
    saved: Vec<Saved>,
}

/// A change that is in place. It is put back when this is dropped, by a panic too.
pub struct Applied {
    saved: Vec<Saved>,
    step: Step,
    in_place: bool,
}

/// Writes down how far a change has got, before it goes on.
pub type Note<'a> = dyn FnMut(Step, &[Saved]) -> Result<()> + 'a;

impl Saved {
    /// Puts the old value back, unless someone else has changed it.
    pub fn restore(&self, step: Step) -> Restored {
        let now = match self.knob.read() {
            Ok(now) => now,
            Err(_) if self.knob.is_gone() => return Restored::Gone,
            Err(error) => return Restored::Failed(format!("{error:#}")),
        };
        if self.knob.is_same(&now, &self.old) {
            return Restored::Original;
        }
        let is_ours = match step {
            Step::Untouched => false,
            Step::Writing => true,
            Step::Written => self.knob.is_same(&now, &self.new),
        };
        if !is_ours {
            return Restored::Foreign(now);
        }
        match self.knob.write(&self.old).and_then(|()| self.knob.read()) {
            Ok(now) if self.knob.is_same(&now, &self.old) => Restored::Original,
            Ok(now) => Restored::Failed(format!("wrote {:?}, reads {now:?}", self.old)),
            Err(error) => Restored::Failed(format!("{error:#}")),
        }
    }

    /// Writes the new value, and makes it what then reads back.
    fn write(&mut self) -> Result<()> {
        let Self { knob, old, new } = self;
        knob.write(new)?;
        let now = knob.read()?;
        if knob.works_same(&now, new) {
            return Ok(());
        }
        if knob.works_same(&now, old) {
            bail!("{knob}: wrote {new:?}, the kernel kept {now:?}");
        }
        *new = now;
        Ok(())
    }

    /// What is wrong with it then; `None`: all is well.
    fn complaint(&self, restored: &Restored) -> Option<Complaint> {
        let Self { knob, old, .. } = self;
        let text = match restored {
            Restored::Original | Restored::Gone => return None,
            Restored::Foreign(now) => format!(
                "{knob} holds {now:?}, which this experiment did not set: it stays; it held \
                 {old:?} before"
            ),
            Restored::Failed(why) => format!("{knob} is not {old:?} again: {why}"),
        };
        Some(Complaint { text, may_retry: matches!(restored, Restored::Failed(_)) })
    }
}

impl Change {
    /// Reads what the knobs hold now.
    ///
    /// # Errors
    ///
    /// When one cannot be read, or is to get two values.
    pub fn new(wanted: Vec<Wanted>) -> Result<Self> {
        let mut saved: Vec<Saved> = Vec::with_capacity(wanted.len());
        for Wanted { knob, value } in wanted {
            if saved.iter().any(|other| other.knob == knob) {
                bail!("{knob} would be set twice");
            }
            saved.push(Saved { old: knob.read()?, knob, new: value });
        }
        Ok(Self { saved })
    }

    /// The knobs with both values, as they were asked for.
    pub fn saved(&self) -> &[Saved] {
        &self.saved
    }

    /// Writes the new values and reads them back. What a driver made of them is what they are
    /// from then on. What was written before an error is put back.
    ///
    /// # Errors
    ///
    /// When someone else changed a knob meanwhile, the kernel refuses a value or keeps the old
    /// one, or `note` fails.
    pub fn apply(&self, note: &mut Note<'_>) -> Result<Applied> {
        for Saved { knob, old, .. } in &self.saved {
            let now = knob.read()?;
            if !knob.is_same(&now, old) {
                bail!("{knob} was {old:?} and is {now:?} now: someone else changed it");
            }
        }
        note(Step::Writing, &self.saved)?;
        let saved = self.saved.clone();
        let mut applied = Applied { saved, step: Step::Writing, in_place: true };
        applied.saved.iter_mut().try_for_each(Saved::write)?;
        applied.step = Step::Written;
        note(Step::Written, &applied.saved).context("the change is put back")?;
        Ok(applied)
    }
}

impl Applied {
    /// The knobs with both values, as they read.
    pub fn saved(&self) -> &[Saved] {
        &self.saved
    }

    /// Puts everything back.
    ///
    /// # Errors
    ///
    /// When a knob does not hold its old value then.
    pub fn revert(mut self) -> Result<()> {
        self.in_place = false;
        match &restore(&self.saved, self.step)[..] {
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

impl Drop for Applied {
    fn drop(&mut self) {
        if self.in_place {
            for complaint in restore(&self.saved, self.step) {
                log::error!("{}", complaint.text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::experiment::knob::{FileKnob, Form};

    /// The name of a task, which the kernel cuts after 15 characters as a driver may round a
    /// setting. It is a thread's own, so that tests do not meet.
    const NAME: &str = "/proc/thread-self/comm";

    fn knob(path: &Path) -> Knob {
        Knob::File(FileKnob { path: path.into(), netns: None, form: Form::Words })
    }

    fn change(path: &Path, value: &str) -> Change {
        Change::new(vec![Wanted { knob: knob(path), value: value.into() }]).unwrap()
    }

    fn apply(change: &Change) -> Result<Applied> {
        change.apply(&mut |_, _| Ok(()))
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
        let applied = apply(&change).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "3 4");
        applied.revert().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1 2");
    }

    #[test]
    fn what_the_kernel_makes_of_a_value_is_taken_and_put_back() {
        let before = fs::read_to_string(NAME).unwrap();
        let change = change(Path::new(NAME), "longer-than-a-name-can-be");
        let mut steps = Vec::new();
        let applied = change
            .apply(&mut |step, saved| {
                steps.push((step, saved[0].new.clone()));
                Ok(())
            })
            .unwrap();
        assert_eq!(applied.saved()[0].new, "longer-than-a-n");
        let expected = [
            (Step::Writing, "longer-than-a-name-can-be".to_owned()),
            (Step::Written, "longer-than-a-n".to_owned()),
        ];
        assert_eq!(steps, expected);
        applied.revert().unwrap();
        assert_eq!(fs::read_to_string(NAME).unwrap(), before);
    }

    #[test]
    fn what_the_kernel_keeps_is_an_error() {
        let name = "just-15-letters";
        fs::write(NAME, name).unwrap();
        // Cut, it is the old one again.
        let change = change(Path::new(NAME), "just-15-letters-and-more");
        let error = format!("{:#}", apply(&change).err().unwrap());
        assert!(error.contains("the kernel kept \"just-15-letters\""), "{error}");
        assert_eq!(fs::read_to_string(NAME).unwrap().trim(), name);
    }

    #[test]
    fn while_values_are_written_any_value_is_ours() {
        let before = fs::read_to_string(NAME).unwrap();
        let change = change(Path::new(NAME), "longer-than-a-name-can-be");
        fs::write(NAME, "longer-than-a-name-can-be").unwrap();
        // As it stands in the journal of who was killed before it could read the value back.
        assert_eq!(restore(change.saved(), Step::Writing), []);
        assert_eq!(fs::read_to_string(NAME).unwrap(), before);
        // Before and after that, it is someone else's.
        fs::write(NAME, "someone").unwrap();
        for step in [Step::Untouched, Step::Written] {
            assert!(!restore(change.saved(), step)[0].may_retry, "{step:?}");
            assert_eq!(fs::read_to_string(NAME).unwrap().trim(), "someone");
        }
    }

    #[test]
    fn what_cannot_be_written_down_is_not_changed() {
        for failing in [Step::Writing, Step::Written] {
            let (_folder, path) = file();
            let change = change(&path, "3 4");
            let mut note = |step, _: &[Saved]| match step == failing {
                true => bail!("no space left"),
                false => Ok(()),
            };
            let error = format!("{:#}", change.apply(&mut note).err().unwrap());
            assert!(error.contains("no space left"), "{error}");
            let words = fs::read_to_string(&path).unwrap();
            assert!(words.split_whitespace().eq(["1", "2"]), "{words:?}");
        }
    }

    #[test]
    fn a_panic_puts_it_back() {
        let (_folder, path) = file();
        let change = change(&path, "3 4");
        let panicked = std::panic::catch_unwind(|| {
            let _applied = apply(&change).unwrap();
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
        let applied = apply(&change).unwrap();
        fs::write(&path, "9 9").unwrap();
        let error = format!("{:#}", applied.revert().unwrap_err());
        assert!(error.contains("\"9 9\"") && error.contains("\"1 2\""), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "9 9");
        assert!(apply(&change).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "9 9");
    }

    #[test]
    fn a_knob_that_is_gone_is_no_complaint() {
        let (folder, path) = file();
        let change = change(&path, "3 4");
        let applied = apply(&change).unwrap();
        drop(folder);
        applied.revert().unwrap();
    }

    #[test]
    fn two_values_for_one_knob_are_refused() {
        let (_folder, path) = file();
        let wanted = ["3 4", "5 6"].map(|value| Wanted { knob: knob(&path), value: value.into() });
        assert!(Change::new(wanted.into()).unwrap_err().to_string().contains("set twice"));
    }
}
