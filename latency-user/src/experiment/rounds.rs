//! The order of an experiment, A, B, A, B, A, and its conclusion. A is a window without the change,
//! B one with it.
//!
//! Each round's last A is the next round's first. The middle of all As is therefore the middle of
//! all Bs, and a steadily growing or falling load affects both sides alike.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Result, bail};

use super::{
    change::{Applied, ChangeSet, ChangeStep, SavedValue},
    guards,
    journal::{Journal, JournalDirectory, JournalEntry},
    side::SideRecording,
    watchdog::Watchdog,
    window::{Window, WindowConfig},
};
use crate::{
    compare,
    model::{
        comparison::{Comparison, Verdict},
        experiment::{Changed, Conclusion, Experiment, Guard, Rates, Setting, WindowSummary},
        note::Note,
    },
    recording::loaded::LoadedRecording,
};

/// How often a pause checks for its end and for a signal.
const TICK: Duration = Duration::from_millis(10);

/// The plan of an experiment.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The requested settings, as the user wrote them.
    pub requested: Vec<String>,
    /// What each window measures.
    pub window: WindowConfig,
    /// Unmeasured pause after each change.
    pub settle: Duration,
    /// Windows with the change.
    pub rounds: u32,
    /// Whether to keep a change that is an improvement.
    pub keep: bool,
    /// Directory for recordings.
    pub output: PathBuf,
    /// Directory of journals.
    pub journals: JournalDirectory,
}

/// Progress of an experiment.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    /// A window starts.
    Window {
        /// Its number, from 1.
        at: u32,
        /// Number of windows.
        of: u32,
        /// Whether the change is in place.
        changed: bool,
        /// How long it takes.
        length: Duration,
    },
    /// A window has ended.
    Measured(&'a WindowSummary),
    /// The new values are in effect.
    Applied(&'a [Changed]),
    /// The old values are back.
    Reverted,
    /// A window ends early.
    Aborted(&'a Note),
    /// The change is about to be applied again, to confirm the improvement.
    Confirming,
}

/// The result of an experiment.
pub struct Finished {
    /// Its conclusion with the data behind it.
    pub experiment: Experiment,
    /// The recordings that were compared.
    pub sides: Sides,
}

/// All windows without the change, and all with it.
pub struct Sides {
    /// Without it.
    pub before: LoadedRecording,
    /// With it.
    pub after: LoadedRecording,
}

/// Protects the setting. Fields drop in this order: the journal is unlocked before the watchdog
/// takes it.
struct Safeguards {
    journal: Option<Journal>,
    watchdog: Option<Watchdog>,
}

/// Measures and compares all windows. Leaves the setting as it was, unless the plan keeps it.
///
/// # Errors
///
/// When a window cannot be measured, `stop` was set, or the setting could not be put back. Even
/// then the setting is the original one, unless the error says otherwise.
pub fn run(
    plan: &Plan,
    change: &ChangeSet,
    stop: &AtomicBool,
    report: &mut dyn FnMut(Progress<'_>),
) -> Result<Finished> {
    let started_at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let entry = JournalEntry::new(started_at, plan.requested.clone(), change.saved().to_vec())?;
    let journal = plan.journals.begin(&entry)?;
    let watchdog = Watchdog::start(&plan.journals, &journal)?;
    let mut safeguards = Safeguards { journal: Some(journal), watchdog: Some(watchdog) };
    let mut windows = Windows {
        plan,
        change,
        safeguards: &mut safeguards,
        stop,
        report,
        at: 0,
        max_stall_rate: 0.0,
        changed: Vec::new(),
        done: Vec::new(),
    };
    let outcome = windows.run();
    let kept = matches!(&outcome, Ok(outcome) if outcome.experiment.setting == Setting::Kept);
    safeguards.end(kept)?;
    outcome
}

impl Safeguards {
    fn note(&mut self, step: ChangeStep, saved: &[SavedValue]) -> Result<()> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.note(step, saved))
    }

    /// Ends the experiment with the new setting kept, or the original one put back.
    fn end(mut self, kept: bool) -> Result<()> {
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
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.dismiss()?;
        }
        if let Some(failure) = failures.first() {
            bail!("{}", failure.text);
        }
        Ok(())
    }
}

/// The windows of an experiment.
struct Windows<'a> {
    plan: &'a Plan,
    change: &'a ChangeSet,
    safeguards: &'a mut Safeguards,
    stop: &'a AtomicBool,
    report: &'a mut dyn FnMut(Progress<'_>),
    at: u32,
    /// The highest stall rate, per second, of a window without the change.
    max_stall_rate: f64,
    /// The settings as last changed.
    changed: Vec<Changed>,
    done: Vec<WindowSummary>,
}

impl Windows<'_> {
    fn run(&mut self) -> Result<Finished> {
        let output = &self.plan.output;
        let mut before = SideRecording::create(output.join("before.hlog"))?;
        let mut after = SideRecording::create(output.join("after.hlog"))?;
        self.measure(&mut before, false)?;
        let mut aborted = None;
        for _ in 0..self.plan.rounds {
            let applied = self.apply()?;
            aborted = self.measure(&mut after, true)?;
            self.revert(applied)?;
            if aborted.is_some() {
                break;
            }
            self.measure(&mut before, false)?;
        }
        let guards = guards::judge(&before.rates, &after.rates);
        let (culprits, stall_time) = (before.culprits(), Some(before.stall_time()));
        let without = before.rates.clone();
        let duration_classes = [before.duration_classes(), after.duration_classes()];
        let sides = Sides::read(&before.finish()?, &after.finish()?)?;
        let comparison = sides.compare();
        let conclusion = conclude(verdict(&comparison), &guards, aborted.is_some());
        let setting = match conclusion {
            Conclusion::Improved if self.plan.keep => self.confirm(&sides.before, &without)?,
            _ => Setting::Original,
        };
        let experiment = Experiment {
            conclusion,
            setting,
            changed: std::mem::take(&mut self.changed),
            aborted,
            guards,
            windows: std::mem::take(&mut self.done),
            duration_classes,
            culprits,
            stall_time,
            comparison,
        };
        Ok(Finished { experiment, sides })
    }

    /// Measures one window. Returns why it ended early; `None`: it did not.
    fn measure(&mut self, side: &mut SideRecording, changed: bool) -> Result<Option<Note>> {
        self.at += 1;
        let (at, of) = (self.at, self.at.max(2 * self.plan.rounds + 1));
        let length = self.plan.window.length;
        (self.report)(Progress::Window { at, of, changed, length });
        let kind = if changed { "after" } else { "before" };
        let path = self.plan.output.join(format!("window-{at}-{kind}.hlog"));
        let baseline = changed.then_some(self.max_stall_rate);
        let Window { summary, aborted } =
            self.plan.window.measure(&path, side, baseline, self.stop)?;
        if !changed {
            self.max_stall_rate =
                self.max_stall_rate.max(summary.stalls as f64 / summary.duration_s);
        }
        if let Some(reason) = &aborted {
            (self.report)(Progress::Aborted(reason));
        }
        (self.report)(Progress::Measured(&summary));
        self.done.push(summary);
        Ok(aborted)
    }

    /// Applies the change and lets it settle.
    fn apply(&mut self) -> Result<Applied> {
        let applied = self.change.apply(&mut |step, saved| self.safeguards.note(step, saved))?;
        self.changed = applied.saved().iter().map(SavedValue::changed).collect();
        (self.report)(Progress::Applied(&self.changed));
        self.settle()?;
        Ok(applied)
    }

    fn revert(&mut self, applied: Applied) -> Result<()> {
        applied.revert()?;
        (self.report)(Progress::Reverted);
        self.settle()
    }

    fn settle(&self) -> Result<()> {
        let end = Instant::now() + self.plan.settle;
        while Instant::now() < end {
            if self.stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Measures once more with the change, and keeps it only if that window is an improvement too.
    fn confirm(&mut self, before: &LoadedRecording, without: &[Rates]) -> Result<Setting> {
        (self.report)(Progress::Confirming);
        let applied = self.apply()?;
        let path = self.plan.output.join("confirmation.hlog");
        let mut side = SideRecording::create(path)?;
        let aborted = self.measure(&mut side, true)?;
        let guards = guards::judge(without, &side.rates);
        let comparison = compare::compare(before, &LoadedRecording::read(&side.finish()?)?);
        if conclude(verdict(&comparison), &guards, aborted.is_some()) == Conclusion::Improved {
            applied.keep();
            return Ok(Setting::Kept);
        }
        applied.revert()?;
        (self.report)(Progress::Reverted);
        Ok(Setting::NotConfirmed)
    }
}

impl Sides {
    fn read(before: &Path, after: &Path) -> Result<Self> {
        Ok(Self { before: LoadedRecording::read(before)?, after: LoadedRecording::read(after)? })
    }

    fn compare(&self) -> Comparison {
        compare::compare(&self.before, &self.after)
    }
}

/// The verdict on the windows. So few intervals that stalls may cluster unseen give none.
fn verdict(comparison: &Comparison) -> Verdict {
    let few = |note: &Note| matches!(note, Note::TooFewIntervals { .. });
    match comparison.notes.iter().any(few) {
        true => Verdict::NotComparable,
        false => comparison.verdict,
    }
}

fn conclude(verdict: Verdict, guards: &[Guard], aborted: bool) -> Conclusion {
    let suffered = guards.iter().any(|guard| guard.worse);
    match verdict {
        _ if aborted => Conclusion::Worse,
        Verdict::Worse => Conclusion::Worse,
        Verdict::Improved if suffered => Conclusion::ImprovedAtACost,
        Verdict::Improved => Conclusion::Improved,
        _ if suffered => Conclusion::Worse,
        Verdict::NoDifferenceShown => Conclusion::NoDifferenceShown,
        Verdict::NotComparable => Conclusion::NotComparable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_and_aborts_affect_the_conclusion() {
        let guard = |worse| [Guard { name: "drops", before: 0.0, after: 0.0, worse }];
        for (verdict, worse, aborted, expected) in [
            (Verdict::Improved, false, false, Conclusion::Improved),
            (Verdict::Improved, true, false, Conclusion::ImprovedAtACost),
            (Verdict::Improved, false, true, Conclusion::Worse),
            (Verdict::NoDifferenceShown, true, false, Conclusion::Worse),
            (Verdict::NoDifferenceShown, false, false, Conclusion::NoDifferenceShown),
            (Verdict::Worse, false, false, Conclusion::Worse),
            (Verdict::NotComparable, false, false, Conclusion::NotComparable),
        ] {
            assert_eq!(conclude(verdict, &guard(worse), aborted), expected);
        }
    }
}
