//! The order of an experiment: A, B, A, B, A, where A is a window as it was and B one with the
//! change, and what they conclude.
//!
//! Each round's last A is the next one's first. So the middle of all As is the middle of all Bs,
//! and a load that grows or falls steadily weighs on both sides alike.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Result, bail};

use super::{
    change::{Applied, Change, Saved, Step},
    guards,
    journal::{Entry, Folder, Journal},
    watchdog::Watchdog,
    window::{Look, Measured, Side},
};
use crate::{
    compare::{self, Recorded},
    model::{
        comparison::{Comparison, Verdict},
        experiment::{Changed, Conclusion, Experiment, Guard, Rates, Setting, WindowSummary},
    },
};

/// How often the end of a pause, and a signal, is looked for.
const TICK: Duration = Duration::from_millis(10);

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What was asked for, in the user's words.
    pub settings: Vec<String>,
    /// What each window measures.
    pub look: Look,
    /// Pause after each change, which is not measured.
    pub settle: Duration,
    /// Windows with the change.
    pub rounds: u32,
    /// Whether to keep a change that improved.
    pub keep: bool,
    /// Where recordings go.
    pub output: PathBuf,
    /// Where journals lie.
    pub journals: Folder,
}

/// What is going on.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    /// A window begins.
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
    /// The new values are in place, or about to be measured again.
    Applied(&'a [Changed]),
    /// The old value is back.
    Reverted,
    /// A window ends early.
    Aborted(&'a str),
    /// The change is about to be made once more, to confirm what improved.
    Confirming,
}

/// What protects the setting. The journal is let go before the watchdog looks for it.
struct Safeguards {
    journal: Option<Journal>,
    watchdog: Option<Watchdog>,
}

/// Measures all windows, compares them, and leaves the setting as it was, or as the plan says.
///
/// # Errors
///
/// When a window cannot be measured, `stop` was set, or the setting could not be put back. It is
/// the original one then too, unless the error says otherwise.
pub fn run(
    plan: &Plan,
    change: &Change,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(Progress<'_>),
) -> Result<Experiment> {
    let began_at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let entry = Entry::new(began_at, plan.settings.clone(), change.saved().to_vec())?;
    let journal = plan.journals.begin(&entry)?;
    let watchdog = Watchdog::start(&plan.journals, &journal)?;
    let mut safeguards = Safeguards { journal: Some(journal), watchdog: Some(watchdog) };
    let mut windows = Windows {
        plan,
        change,
        safeguards: &mut safeguards,
        stop,
        tell,
        at: 0,
        most: 0.0,
        changed: Vec::new(),
        done: Vec::new(),
    };
    let outcome = windows.run();
    let kept = matches!(&outcome, Ok(outcome) if outcome.setting == Setting::Kept);
    safeguards.end(kept)?;
    outcome
}

impl Safeguards {
    fn note(&mut self, step: Step, saved: &[Saved]) -> Result<()> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.note(step, saved))
    }

    /// Ends the experiment: with its setting kept, or certainly the original one.
    fn end(mut self, kept: bool) -> Result<()> {
        let entry = self.journal.as_ref().and_then(|journal| journal.entry.as_ref());
        let complaints = entry.filter(|_| !kept).map(Entry::restore).unwrap_or_default();
        if complaints.iter().any(|complaint| complaint.may_retry) {
            // The journal stays, and the watchdog tries again.
            let texts: Vec<String> = complaints.into_iter().map(|one| one.text).collect();
            bail!("{}; `latency-user experiment --undo` tries again", texts.join("; "));
        }
        if let Some(journal) = self.journal.take() {
            journal.done()?;
        }
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.dismiss()?;
        }
        if let Some(complaint) = complaints.first() {
            bail!("{}", complaint.text);
        }
        Ok(())
    }
}

/// The windows of an experiment.
struct Windows<'a> {
    plan: &'a Plan,
    change: &'a Change,
    safeguards: &'a mut Safeguards,
    stop: &'a AtomicBool,
    tell: &'a mut dyn FnMut(Progress<'_>),
    at: u32,
    /// The most stalls per second in a window without the change.
    most: f64,
    /// The settings as they were changed last.
    changed: Vec<Changed>,
    done: Vec<WindowSummary>,
}

impl Windows<'_> {
    fn run(&mut self) -> Result<Experiment> {
        let output = &self.plan.output;
        let mut before = Side::create(output.join("before.hlog"))?;
        let mut after = Side::create(output.join("after.hlog"))?;
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
        let (culprits, without) = (before.totals().culprits(), before.rates.clone());
        let lengths = [before.lengths(), after.lengths()];
        let (before, after) = (before.finish()?, after.finish()?);
        let comparison = compare(&before, &after)?;
        let conclusion = conclude(comparison.verdict, &guards, aborted.is_some());
        let setting = match conclusion {
            Conclusion::Improved if self.plan.keep => self.confirm(&before, &without)?,
            _ => Setting::Original,
        };
        Ok(Experiment {
            conclusion,
            setting,
            changed: std::mem::take(&mut self.changed),
            aborted,
            guards,
            windows: std::mem::take(&mut self.done),
            lengths,
            culprits,
            comparison,
        })
    }

    /// Measures one window. Returns why it ended early; `None`: it did not.
    fn measure(&mut self, side: &mut Side, changed: bool) -> Result<Option<String>> {
        self.at += 1;
        let (at, of) = (self.at, self.at.max(2 * self.plan.rounds + 1));
        let length = self.plan.look.length;
        (self.tell)(Progress::Window { at, of, changed, length });
        let kind = if changed { "after" } else { "before" };
        let path = self.plan.output.join(format!("window-{at}-{kind}.hlog"));
        let baseline = changed.then_some(self.most);
        let Measured { summary, aborted } =
            self.plan.look.measure(&path, side, baseline, self.stop)?;
        if !changed {
            self.most = self.most.max(summary.stalls as f64 / summary.duration_s);
        }
        if let Some(reason) = &aborted {
            (self.tell)(Progress::Aborted(reason));
        }
        (self.tell)(Progress::Measured(&summary));
        self.done.push(summary);
        Ok(aborted)
    }

    /// Puts the change in place and lets it settle.
    fn apply(&mut self) -> Result<Applied> {
        let applied = self.change.apply(&mut |step, saved| self.safeguards.note(step, saved))?;
        let both = self.change.saved().iter().zip(applied.saved());
        self.changed = both.map(|(asked, is)| changed(asked, is)).collect();
        (self.tell)(Progress::Applied(&self.changed));
        self.settle()?;
        Ok(applied)
    }

    fn revert(&mut self, applied: Applied) -> Result<()> {
        applied.revert()?;
        (self.tell)(Progress::Reverted);
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

    /// Measures once more with the change, and keeps it unless that window is worse than before.
    fn confirm(&mut self, before: &Path, without: &[Rates]) -> Result<Setting> {
        (self.tell)(Progress::Confirming);
        let applied = self.apply()?;
        let path = self.plan.output.join("confirmation.hlog");
        let mut side = Side::create(path)?;
        let aborted = self.measure(&mut side, true)?;
        let guards = guards::judge(without, &side.rates);
        let comparison = compare(before, &side.finish()?)?;
        if conclude(comparison.verdict, &guards, aborted.is_some()) == Conclusion::Improved {
            applied.keep();
            return Ok(Setting::Kept);
        }
        applied.revert()?;
        (self.tell)(Progress::Reverted);
        Ok(Setting::NotConfirmed)
    }
}

fn compare(before: &Path, after: &Path) -> Result<Comparison> {
    Ok(compare::compare(&Recorded::read(before)?, &Recorded::read(after)?))
}

/// A setting as it was asked for and as it is.
fn changed(asked: &Saved, is: &Saved) -> Changed {
    Changed {
        knob: is.knob.to_string(),
        old: is.old.clone(),
        new: is.new.clone(),
        asked: (asked.new != is.new).then(|| asked.new.clone()),
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
    fn guards_and_early_ends_weigh_in() {
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
