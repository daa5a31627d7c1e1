//! Changes of knobs: written, read back, put back. Values set by others are never overwritten.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{knob::Knob, tunable::Assignment};
use crate::model::experiment::Changed;

/// A knob with its old value and the value to try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedValue {
    /// The knob.
    pub knob: Knob,
    /// What it held before.
    pub old: String,
    /// The requested value.
    #[serde(alias = "new")]
    pub requested: String,
    /// The value read back after a successful write: drivers may round. `None`: not written yet, or
    /// the journal is from an older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<String>,
    /// Whether it is not written, but may move with those that are, and is put back after them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follows: bool,
}

/// Progress of a change. Each step is on disk before the change continues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeStep {
    /// Nothing was written yet: a value other than the old one was set by someone else.
    Untouched,
    /// The new values are being written, and the driver's rounding is not known yet: any value
    /// counts as ours. Someone else would have to write within these milliseconds.
    Writing,
    /// The new values were written and read back: a value that is neither the old nor the new one
    /// was set by someone else. Journals from older versions have no steps and mean this one.
    #[default]
    Written,
}

/// The outcome of putting a knob back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It holds the old value, written now or there already.
    Original,
    /// It held this value, set by someone else: neither the old nor the new one. It is left as is.
    Foreign(String),
    /// It disappeared with its network namespace or device.
    Gone,
    /// It could not be put back.
    Failed(String),
}

/// A knob that does not hold its old value, although it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreFailure {
    /// What is wrong, and where.
    pub text: String,
    /// Whether a retry may succeed: the value was not set by someone else.
    pub may_retry: bool,
}

/// Puts knobs back, the last one first, then those that moved with them, and returns the ones that
/// do not hold their old values.
pub fn restore(saved: &[SavedValue], step: ChangeStep) -> Vec<RestoreFailure> {
    // Putting back the first ones may move the others again, so it is asked before who moved them.
    let followers: Vec<&SavedValue> =
        saved.iter().filter(|value| value.follows && value.has_only_followed(step)).collect();
    let mut failed: Vec<(&SavedValue, Restored)> = Vec::new();
    for value in saved.iter().rev().filter(|value| !value.follows) {
        failed.push((value, value.restore(step)));
    }
    for value in followers {
        failed.push((value, value.write_old()));
    }
    // One that its followers set, such as of two settings of which each sets the other to zero.
    for (value, restored) in &mut failed {
        if matches!(restored, Restored::Failed(_)) && value.holds_old() {
            *restored = Restored::Original;
        }
    }
    failed.iter().filter_map(|(value, restored)| value.failure(restored)).collect()
}

/// All knobs of an experiment.
#[derive(Clone, Debug)]
pub struct ChangeSet {
    saved: Vec<SavedValue>,
}

/// A change that is in effect. Dropping it puts the old values back, also during a panic.
pub struct Applied {
    saved: Vec<SavedValue>,
    step: ChangeStep,
    in_place: bool,
}

/// Records the progress of a change, before it continues.
pub type RecordStep<'a> = dyn FnMut(ChangeStep, &[SavedValue]) -> Result<()> + 'a;

impl SavedValue {
    /// Puts the old value back, unless someone else has changed it.
    pub fn restore(&self, step: ChangeStep) -> Restored {
        let now = match self.knob.read() {
            Ok(now) => now,
            Err(_) if self.knob.is_gone() => return Restored::Gone,
            Err(error) => return Restored::Failed(format!("{error:#}")),
        };
        if self.knob.is_same(&now, &self.old) {
            return Restored::Original;
        }
        let is_ours = match step {
            ChangeStep::Untouched => false,
            ChangeStep::Writing => true,
            ChangeStep::Written => self.knob.is_same(&now, self.new_value()),
        };
        if !is_ours {
            return Restored::Foreign(now);
        }
        self.write_old()
    }

    /// Whether its value is the old one, or moved with the change and was left alone since.
    fn has_only_followed(&self, step: ChangeStep) -> bool {
        match (step, self.knob.read()) {
            (ChangeStep::Untouched, _) => false,
            // A queue that the change removed comes back without it.
            (ChangeStep::Writing, _) | (_, Err(_)) => true,
            (ChangeStep::Written, Ok(now)) => {
                let ours = [&*self.old, self.new_value()];
                let is_ours = ours.iter().any(|value| self.knob.is_same(&now, value));
                if !is_ours {
                    log::warn!(
                        "{} holds {now:?}, which it did not after the change, and is left as is; it \
                         held {:?} before",
                        self.knob,
                        self.old
                    );
                }
                is_ours
            }
        }
    }

    fn holds_old(&self) -> bool {
        self.knob.read().is_ok_and(|now| self.knob.is_same(&now, &self.old))
    }

    /// Writes the old value, if it is not there.
    fn write_old(&self) -> Restored {
        match self.knob.read() {
            Ok(now) if self.knob.is_same(&now, &self.old) => return Restored::Original,
            Ok(_) => {}
            Err(_) if self.knob.is_gone() => return Restored::Gone,
            Err(error) => return Restored::Failed(format!("{error:#}")),
        }
        match self.knob.write(&self.old).and_then(|()| self.knob.read()) {
            Ok(now) if self.knob.is_same(&now, &self.old) => Restored::Original,
            Ok(now) => Restored::Failed(format!("wrote {:?}, reads {now:?}", self.old)),
            Err(error) => Restored::Failed(format!("{error:#}")),
        }
    }

    /// The new value: as read back if known, else as requested.
    pub fn new_value(&self) -> &str {
        self.effective.as_ref().unwrap_or(&self.requested)
    }

    /// The knob with its values, as shown in results.
    pub fn changed(&self) -> Changed {
        Changed {
            knob: self.knob.to_string(),
            old: self.old.clone(),
            requested: self.requested.clone(),
            effective: self.new_value().to_owned(),
        }
    }

    /// Writes the new value and stores what is read back.
    fn write(&mut self) -> Result<()> {
        let Self { knob, old, requested, effective, .. } = self;
        knob.write(requested)?;
        let now = knob.read()?;
        if knob.works_same(&now, requested) {
            // The same value in another spelling.
            *effective = Some(requested.clone());
            return Ok(());
        }
        if knob.works_same(&now, old) {
            bail!("{knob}: wrote {requested:?}, the kernel kept {now:?}");
        }
        *effective = Some(now);
        Ok(())
    }

    /// The failure, if the knob does not hold its old value after `restored`.
    fn failure(&self, restored: &Restored) -> Option<RestoreFailure> {
        let Self { knob, old, .. } = self;
        let text = match restored {
            Restored::Original | Restored::Gone => return None,
            Restored::Foreign(now) => format!(
                "{knob} holds {now:?}, which this experiment did not set: left as is; it held \
                 {old:?} before"
            ),
            Restored::Failed(why) => format!("{knob} was not put back to {old:?}: {why}"),
        };
        Some(RestoreFailure { text, may_retry: matches!(restored, Restored::Failed(_)) })
    }
}

impl ChangeSet {
    /// Reads the current values of the knobs.
    ///
    /// # Errors
    ///
    /// When a knob cannot be read, or would be set twice. Those of `followers` that cannot be read
    /// are left out.
    pub fn new(wanted: Vec<Assignment>, followers: Vec<Knob>) -> Result<Self> {
        let mut saved: Vec<SavedValue> = Vec::with_capacity(wanted.len());
        for Assignment { knob, value } in wanted {
            if saved.iter().any(|other| other.knob == knob) {
                bail!("{knob} would be set twice");
            }
            let old = knob.read()?;
            saved.push(SavedValue { old, knob, requested: value, effective: None, follows: false });
        }
        for knob in followers {
            if let Ok(old) = knob.read()
                && saved.iter().all(|other| other.knob != knob)
            {
                let requested = old.clone();
                saved.push(SavedValue { old, knob, requested, effective: None, follows: true });
            }
        }
        Ok(Self { saved })
    }

    /// The knobs with their old and requested values.
    pub fn saved(&self) -> &[SavedValue] {
        &self.saved
    }

    /// Whether some knobs are of the network, which the kernel guards by a capability of its own.
    pub fn is_of_network(&self) -> bool {
        self.saved.iter().any(|saved| saved.knob.is_of_network())
    }

    /// Knobs that are not written, but may move with the change, and are put back.
    pub fn followers(&self) -> impl Iterator<Item = &Knob> {
        self.saved.iter().filter(|saved| saved.follows).map(|saved| &saved.knob)
    }

    /// Writes the new values and reads them back: drivers may round. On an error, values that were
    /// written already are put back.
    ///
    /// # Errors
    ///
    /// When someone else changed a knob meanwhile, the kernel refuses a value or keeps the old
    /// one, or `record_step` fails.
    pub fn apply(&self, record_step: &mut RecordStep<'_>) -> Result<Applied> {
        for SavedValue { knob, old, .. } in &self.saved {
            let now = knob.read()?;
            if !knob.is_same(&now, old) {
                bail!("{knob} was {old:?} and is {now:?} now: someone else changed it");
            }
        }
        record_step(ChangeStep::Writing, &self.saved)?;
        let saved = self.saved.clone();
        let mut applied = Applied { saved, step: ChangeStep::Writing, in_place: true };
        let (followers, first): (Vec<_>, Vec<_>) =
            applied.saved.iter_mut().partition(|value| value.follows);
        first.into_iter().try_for_each(SavedValue::write)?;
        for value in followers {
            value.effective = value.knob.read().ok();
        }
        applied.step = ChangeStep::Written;
        record_step(ChangeStep::Written, &applied.saved).context("the change is put back")?;
        Ok(applied)
    }
}

impl Applied {
    /// The knobs with their old values and the new ones as read back.
    pub fn saved(&self) -> &[SavedValue] {
        &self.saved
    }

    /// Puts everything back.
    ///
    /// # Errors
    ///
    /// When a knob does not hold its old value afterwards.
    pub fn revert(mut self) -> Result<()> {
        self.in_place = false;
        match &restore(&self.saved, self.step)[..] {
            [] => Ok(()),
            failures => {
                let texts: Vec<&str> =
                    failures.iter().map(|failure| failure.text.as_str()).collect();
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
            for failure in restore(&self.saved, self.step) {
                log::error!("{}", failure.text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::experiment::knob::{FileKnob, Form};

    /// The name of a task, which the kernel truncates to 15 characters, as a driver may round a
    /// setting. It is per thread, so that tests do not interfere.
    const NAME: &str = "/proc/thread-self/comm";

    fn knob(path: &Path) -> Knob {
        Knob::File(FileKnob { path: path.into(), netns: None, form: Form::Words })
    }

    fn change(path: &Path, value: &str) -> ChangeSet {
        ChangeSet::new(vec![Assignment { knob: knob(path), value: value.into() }], Vec::new())
            .unwrap()
    }

    fn apply(change: &ChangeSet) -> Result<Applied> {
        change.apply(&mut |_, _| Ok(()))
    }

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("knob");
        fs::write(&path, "1\t2\n").unwrap();
        (directory, path)
    }

    #[test]
    fn a_change_is_put_back() {
        let (_directory, path) = file();
        let change = change(&path, "3 4");
        let applied = apply(&change).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "3 4");
        applied.revert().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1 2");
    }

    #[test]
    fn a_value_that_the_kernel_rounds_is_accepted_and_put_back() {
        let before = fs::read_to_string(NAME).unwrap();
        let change = change(Path::new(NAME), "longer-than-a-name-can-be");
        let mut steps = Vec::new();
        let applied = change
            .apply(&mut |step, saved| {
                steps.push((step, saved[0].new_value().to_owned()));
                Ok(())
            })
            .unwrap();
        assert_eq!(applied.saved()[0].new_value(), "longer-than-a-n");
        let expected = [
            (ChangeStep::Writing, "longer-than-a-name-can-be".to_owned()),
            (ChangeStep::Written, "longer-than-a-n".to_owned()),
        ];
        assert_eq!(steps, expected);
        applied.revert().unwrap();
        assert_eq!(fs::read_to_string(NAME).unwrap(), before);
    }

    #[test]
    fn a_value_that_the_kernel_ignores_is_an_error() {
        let name = "just-15-letters";
        fs::write(NAME, name).unwrap();
        // Truncated, it equals the old value.
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
        // As in the journal of a process that was killed before it could read the value back.
        assert_eq!(restore(change.saved(), ChangeStep::Writing), []);
        assert_eq!(fs::read_to_string(NAME).unwrap(), before);
        // Before and after that step, the value is someone else's.
        fs::write(NAME, "someone").unwrap();
        for step in [ChangeStep::Untouched, ChangeStep::Written] {
            assert!(!restore(change.saved(), step)[0].may_retry, "{step:?}");
            assert_eq!(fs::read_to_string(NAME).unwrap().trim(), "someone");
        }
    }

    #[test]
    fn a_change_that_cannot_be_recorded_is_not_made() {
        for failing in [ChangeStep::Writing, ChangeStep::Written] {
            let (_directory, path) = file();
            let change = change(&path, "3 4");
            let mut record_step = |step, _: &[SavedValue]| match step == failing {
                true => bail!("no space left"),
                false => Ok(()),
            };
            let error = format!("{:#}", change.apply(&mut record_step).err().unwrap());
            assert!(error.contains("no space left"), "{error}");
            let words = fs::read_to_string(&path).unwrap();
            assert!(words.split_whitespace().eq(["1", "2"]), "{words:?}");
        }
    }

    #[test]
    fn a_panic_puts_it_back() {
        let (_directory, path) = file();
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
    fn values_set_by_someone_else_stay() {
        let (_directory, path) = file();
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
    fn a_knob_that_is_gone_is_no_failure() {
        let (directory, path) = file();
        let change = change(&path, "3 4");
        let applied = apply(&change).unwrap();
        drop(directory);
        applied.revert().unwrap();
    }

    #[test]
    fn what_moved_with_it_is_put_back_and_what_others_set_is_not() {
        let (directory, path) = file();
        let follower = |name: &str| {
            let path = directory.path().join(name);
            fs::write(&path, "1").unwrap();
            path
        };
        let (moved, foreign, still) = (follower("moved"), follower("foreign"), follower("still"));
        let followers = [&moved, &foreign, &still].map(|path| knob(path)).into();
        let wanted = vec![Assignment { knob: knob(&path), value: "3 4".into() }];
        let change = ChangeSet::new(wanted, followers).unwrap();
        let mut applied = apply(&change).unwrap();
        // As if the kernel had moved it with the change.
        fs::write(&moved, "0").unwrap();
        for value in applied.saved.iter_mut().filter(|value| value.follows) {
            value.effective = value.knob.read().ok();
        }
        fs::write(&foreign, "7").unwrap();
        applied.revert().unwrap();
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!([&path, &moved, &foreign, &still].map(|p| read(p)), ["1 2", "1", "7", "1"]);
        // Without a change, nothing is ours.
        fs::write(&moved, "5").unwrap();
        assert_eq!(restore(change.saved(), ChangeStep::Untouched), []);
        assert_eq!(read(&moved), "5");
    }

    #[test]
    fn what_vanished_with_it_is_put_back_when_it_returns() {
        let (directory, path) = file();
        let queue = directory.path().join("queue");
        fs::write(&queue, "7").unwrap();
        let wanted = vec![Assignment { knob: knob(&path), value: "3 4".into() }];
        let change = ChangeSet::new(wanted, vec![knob(&queue)]).unwrap();
        // As when a driver makes its queues again, some time after the write.
        let applied = apply(&change).unwrap();
        fs::write(&queue, "7").unwrap();
        fs::remove_file(&queue).unwrap();
        assert!(applied.saved()[1].has_only_followed(ChangeStep::Written));
        assert_eq!(applied.saved()[1].write_old(), Restored::Gone);
        fs::write(&queue, "0").unwrap();
        assert_eq!(applied.saved()[1].write_old(), Restored::Original);
        assert_eq!(fs::read_to_string(&queue).unwrap(), "7");
        applied.revert().unwrap();
    }

    #[test]
    fn two_values_for_one_knob_are_refused() {
        let (_directory, path) = file();
        let wanted =
            ["3 4", "5 6"].map(|value| Assignment { knob: knob(&path), value: value.into() });
        assert!(
            ChangeSet::new(wanted.into(), Vec::new())
                .unwrap_err()
                .to_string()
                .contains("set twice")
        );
    }
}
