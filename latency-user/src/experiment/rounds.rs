//! The course of an experiment and its conclusion.
//!
//! After a lead-in, windows with the change and without it follow in pairs ([`schedule`]). Looks
//! after some of the pairs end the experiment as soon as the windows are clear, or cannot become so
//! ([`looks`](super::looks)). A window that ends early because of
//! its stalls is tried once more; then only windows without the change follow, as many as a test
//! needs.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};

use super::{
    abort::Stretches,
    change::{Applied, ChangeSet, SavedValue},
    guards,
    journal::{JournalDirectory, JournalEntry},
    looks::{Ends, Looks},
    neighbours,
    safeguards::Safeguards,
    schedule::{self, Step},
    side::SideRecording,
    window::{Window, WindowConfig},
};
use crate::{
    compare::{self, units::Unit},
    model::{
        comparison::{Comparison, UnitKind, Verdict},
        experiment::{Changed, Conclusion, Experiment, Guard, Role, Setting, WindowSummary},
        note::Note,
    },
    recording::loaded::LoadedRecording,
};

/// How often a pause checks for its end and for a signal.
const TICK: Duration = Duration::from_millis(10);

/// After as many windows that their stalls ended early, the change is not tried again.
const MOST_ABORTED: usize = 2;

/// Windows in all that a test of aborted windows needs.
const LEAST_WINDOWS: usize = 8;

/// The plan of an experiment.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The requested settings, as the user wrote them.
    pub requested: Vec<String>,
    /// What each window measures.
    pub window: WindowConfig,
    /// Unmeasured pause after each change.
    pub settle: Duration,
    /// Pairs of windows, at most.
    pub pairs: u32,
    /// Seed of their order and of the pauses.
    pub seed: u64,
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
        /// What it is for.
        role: Role,
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
    /// The experiment ends before its last window.
    Ends(&'a Ends),
    /// The change is about to be applied again, to be kept.
    Keeping,
}

/// The result of an experiment.
pub struct Finished {
    /// Its conclusion with the data behind it.
    pub experiment: Experiment,
    /// The recordings that were compared.
    pub sides: Sides,
}

/// All windows without the change, and all with it, without the lead-in.
pub struct Sides {
    /// Without it.
    pub before: LoadedRecording,
    /// With it.
    pub after: LoadedRecording,
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
    let mut safeguards = Safeguards::start(&plan.journals, &entry)?;
    let mut windows = Windows {
        plan,
        change,
        safeguards: &mut safeguards,
        stop,
        report,
        at: 0,
        of: 2 * plan.pairs + 1,
        looks: Looks::new(plan.pairs as usize),
        stretches: Stretches::default(),
        changed: Vec::new(),
        done: Vec::new(),
        aborted: Vec::new(),
    };
    let outcome = windows.run();
    let failed = safeguards.failed().map(Note::to_string);
    let kept = matches!(&outcome, Ok(outcome) if outcome.experiment.setting == Setting::Kept);
    safeguards.end(kept)?;
    match failed {
        Some(why) => outcome.context(why),
        None => outcome,
    }
}

/// A window that counts.
struct Done {
    summary: WindowSummary,
    recording: LoadedRecording,
    unit: Unit,
}

/// The windows of an experiment.
struct Windows<'a> {
    plan: &'a Plan,
    change: &'a ChangeSet,
    safeguards: &'a mut Safeguards,
    stop: &'a AtomicBool,
    report: &'a mut dyn FnMut(Progress<'_>),
    at: u32,
    of: u32,
    looks: Looks,
    /// How stalls came without the change.
    stretches: Stretches,
    /// The settings as last changed.
    changed: Vec<Changed>,
    /// The windows after the lead-in.
    done: Vec<Done>,
    /// Why windows ended early.
    aborted: Vec<Note>,
}

impl Windows<'_> {
    fn run(&mut self) -> Result<Finished> {
        let output = &self.plan.output;
        let mut before = SideRecording::create(output.join("before.hlog"), self.plan.window.mode)?;
        let mut after = SideRecording::create(output.join("after.hlog"), self.plan.window.mode)?;
        let lead_in = self.window(Role::LeadIn, None)?.0;
        let given_up = match self.pairs(&mut before, &mut after) {
            // What was measured counts, unless a signal ended it.
            Err(_) if !self.stop.load(Ordering::Relaxed) && self.safeguards.failed().is_some() => {
                self.safeguards.failed().cloned()
            }
            given_up => given_up?,
        };
        let (culprits, stall_time) = (before.culprits(), Some(before.stall_time()));
        let duration_classes = [before.duration_classes(), after.duration_classes()];
        let (before, after) = (before.finish()?, after.finish()?);

        let comparison = self.compare();
        let units = self.units();
        let counted: Vec<WindowSummary> = self.done.iter().map(|d| d.summary.clone()).collect();
        let guards = guards::judge(&counted, &units);
        let aborted = self.aborted.last().cloned();
        let conclusion = match given_up {
            Some(Note::PutBackByWatchdog) => Conclusion::Interrupted,
            _ => conclude(comparison.verdict, &guards, aborted.is_some()),
        };
        let setting = match conclusion {
            Conclusion::Improved if self.plan.keep => self.keep()?,
            _ => Setting::Original,
        };
        let mut windows = vec![lead_in];
        windows.extend(counted);
        if let Some(decision) = &comparison.decision {
            for (window, unit) in windows.iter_mut().skip(1).zip(&units) {
                let stalls = unit.counts.get(&decision.name).map_or(0, |count| count.stalls);
                window.stalls_per_second = stalls as f64 / unit.seconds.max(1e-3);
            }
        }
        let experiment = Experiment {
            conclusion,
            setting,
            changed: std::mem::take(&mut self.changed),
            seed: self.plan.seed,
            planned: 2 * self.plan.pairs as usize,
            neighbours: neighbours::compare(&units, comparison.decision.as_ref()),
            aborted,
            given_up,
            guards,
            windows,
            duration_classes,
            culprits,
            stall_time,
            comparison,
        };
        // An experiment that ends with its first window has nothing but the lead-in to show.
        let without = self.done.iter().any(|done| !done.summary.changed);
        let before = if without { before } else { experiment.windows[0].recording.clone().into() };
        let sides = Sides {
            before: LoadedRecording::read(&before)?,
            after: LoadedRecording::read(&after)?,
        };
        Ok(Finished { experiment, sides })
    }

    /// Measures pairs until the windows are clear or all are measured. Returns why they cannot
    /// become clear, if so.
    fn pairs(
        &mut self,
        before: &mut SideRecording,
        after: &mut SideRecording,
    ) -> Result<Option<Note>> {
        let steps = schedule::steps(self.plan.seed, self.plan.pairs, self.plan.window.length);
        let mut applied: Option<Applied> = None;
        for (at, step) in steps.iter().enumerate() {
            let Step { changed, pause } = self.still(*step);
            match (changed, applied.take()) {
                (true, None) => applied = Some(self.apply()?),
                (false, Some(set)) => self.revert(set)?,
                (_, unchanged) => applied = unchanged,
            }
            if applied.is_some() {
                self.safeguards.expect_within(pause);
            }
            self.pause(pause)?;
            let role = if changed { Role::Changed } else { Role::Unchanged };
            let side = if changed { &mut *after } else { &mut *before };
            let (summary, aborted) = self.window(role, Some(side))?;
            let pair = self.aborted.is_empty().then_some(at / 2);
            self.keep_window(summary, pair)?;
            if let Some(note) = aborted {
                let is_final = !matches!(note, Note::StallRateAboveLimit { .. });
                self.aborted.push(note);
                if let Some(set) = applied.take() {
                    self.revert(set)?;
                }
                if is_final {
                    return Ok(None);
                }
            }
            if self.aborted.len() >= MOST_ABORTED && self.done.len() >= LEAST_WINDOWS {
                break;
            }
            // Windows after an early end are no pairs.
            if at % 2 == 1 && self.aborted.is_empty() {
                let units = self.units();
                if let Some(ends) = self.looks.after_pair(&units) {
                    (self.report)(Progress::Ends(&ends));
                    if let Some(set) = applied.take() {
                        self.revert(set)?;
                    }
                    return Ok(match ends {
                        Ends::Clear => None,
                        Ends::Hopeless(why) => Some(why),
                    });
                }
            }
        }
        if let Some(set) = applied {
            self.revert(set)?;
        }
        Ok(None)
    }

    /// Without the change if it was aborted too often.
    fn still(&self, step: Step) -> Step {
        Step { changed: step.changed && self.aborted.len() < MOST_ABORTED, ..step }
    }

    /// The windows with the change against those without it.
    fn compare(&self) -> Comparison {
        let sides = [false, true].map(|changed| -> Vec<&LoadedRecording> {
            let side = self.done.iter().filter(|done| done.summary.changed == changed);
            side.map(|done| &done.recording).collect()
        });
        let sides = [&sides[0][..], &sides[1]];
        compare::compare_with(sides, UnitKind::Window, self.looks.level(), &self.units())
    }

    fn units(&self) -> Vec<Unit> {
        self.done.iter().map(|done| done.unit.clone()).collect()
    }

    /// Measures one window. Returns why it ended early; `None`: it did not.
    fn window(
        &mut self,
        role: Role,
        side: Option<&mut SideRecording>,
    ) -> Result<(WindowSummary, Option<Note>)> {
        self.at += 1;
        let (at, length) = (self.at, self.plan.window.length);
        (self.report)(Progress::Window { at, of: self.of, role, length });
        let kind = match role {
            Role::LeadIn => "lead-in",
            Role::Unchanged => "before",
            Role::Changed => "after",
        };
        let path = self.plan.output.join(format!("window-{at}-{kind}.hlog"));
        let config = &self.plan.window;
        if role == Role::Changed {
            self.safeguards.expect_within(length);
        }
        let started = Instant::now();
        let (stop, safeguards) = (self.stop, &mut *self.safeguards);
        let mut is_over = || stop.load(Ordering::Relaxed) || !safeguards.hold();
        let Window { summary, aborted } =
            config.measure(&path, role, side, &mut self.stretches, &mut is_over)?;
        self.safeguards.took_longer(started.elapsed().saturating_sub(length));
        self.check()?;
        if let Some(reason) = &aborted {
            (self.report)(Progress::Aborted(reason));
        }
        (self.report)(Progress::Measured(&summary));
        Ok((summary, aborted))
    }

    fn keep_window(&mut self, summary: WindowSummary, pair: Option<usize>) -> Result<()> {
        let recording = LoadedRecording::read(summary.recording.as_ref())?;
        let unit = Unit { pair, ..compare::unit_of(&recording, summary.changed) };
        self.done.push(Done { summary, recording, unit });
        Ok(())
    }

    /// Applies the change and lets it settle.
    fn apply(&mut self) -> Result<Applied> {
        self.check()?;
        self.safeguards.expect_within(self.plan.settle);
        let applied = self.change.apply(&mut |step, saved| self.safeguards.note(step, saved))?;
        self.changed =
            applied.saved().iter().filter(|s| !s.follows).map(SavedValue::changed).collect();
        (self.report)(Progress::Applied(&self.changed));
        self.settle()?;
        Ok(applied)
    }

    fn revert(&mut self, applied: Applied) -> Result<()> {
        applied.revert()?;
        self.safeguards.rest();
        (self.report)(Progress::Reverted);
        self.settle()
    }

    fn settle(&mut self) -> Result<()> {
        self.pause(self.plan.settle)
    }

    fn pause(&mut self, length: Duration) -> Result<()> {
        let end = Instant::now() + length;
        while Instant::now() < end {
            self.check()?;
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Whether the experiment may go on.
    fn check(&mut self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) || !self.safeguards.hold() {
            match self.safeguards.failed() {
                Some(note) => bail!("{note}"),
                None => bail!("interrupted"),
            }
        }
        Ok(())
    }

    /// Applies the change for good.
    fn keep(&mut self) -> Result<Setting> {
        (self.report)(Progress::Keeping);
        self.apply()?.keep();
        // What follows only writes the results, however long that takes.
        self.safeguards.rest();
        Ok(Setting::Kept)
    }
}

fn conclude(verdict: Verdict, guards: &[Guard], aborted: bool) -> Conclusion {
    let suffered = guards.iter().any(|guard| guard.worse);
    match verdict {
        Verdict::Worse => Conclusion::Worse,
        _ if aborted => Conclusion::EndedEarly,
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
        let guard = |worse| [Guard { name: "drops", before: 0.0, after: 0.0, p: Some(0.5), worse }];
        for (verdict, worse, aborted, expected) in [
            (Verdict::Improved, false, false, Conclusion::Improved),
            (Verdict::Improved, true, false, Conclusion::ImprovedAtACost),
            (Verdict::Improved, false, true, Conclusion::EndedEarly),
            (Verdict::NotComparable, false, true, Conclusion::EndedEarly),
            (Verdict::Worse, false, true, Conclusion::Worse),
            (Verdict::NoDifferenceShown, true, false, Conclusion::Worse),
            (Verdict::NoDifferenceShown, false, false, Conclusion::NoDifferenceShown),
            (Verdict::Worse, false, false, Conclusion::Worse),
            (Verdict::NotComparable, false, false, Conclusion::NotComparable),
        ] {
            assert_eq!(conclude(verdict, &guard(worse), aborted), expected);
        }
    }
}
