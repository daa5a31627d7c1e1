//! `scheduler:DISK=NAME`: the I/O scheduler of a disk, which decides how long softirqs of completed
//! requests take.

use std::fs;

use anyhow::{Context, Result};

use super::{Assignment, Scope, Tunable, names_in};
use crate::{
    experiment::knob::{FileKnob, Form, Knob},
    model::failure::Failure,
};

/// The tunable.
pub(super) struct Scheduler;

impl Tunable for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn usage(&self) -> &'static str {
        "DISK=NAME"
    }

    fn describe(&self) -> &'static str {
        "The I/O scheduler of a disk. Disks are machine-wide, whatever the network namespace."
    }

    fn plan(&self, target: &str, value: &str, scope: &Scope) -> Result<Vec<Assignment>> {
        let knob = knob(target, scope);
        if target.contains('/') || target.starts_with('.') || !knob.path.exists() {
            let failure = Failure::new(format!("no disk {target:?} with a scheduler"));
            let disks: Vec<String> = self.targets(scope).into_iter().map(|(d, _)| d).collect();
            return Err(failure.hint(format!("there are: {}", disks.join(", "))).into());
        }
        let path = &knob.path;
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let choices: Vec<_> = text.split_whitespace().map(|c| c.trim_matches(['[', ']'])).collect();
        if !choices.contains(&value) {
            let failure = Failure::new(format!("{target} has no scheduler {value:?}"));
            return Err(failure.hint(format!("there are: {}", choices.join(", "))).into());
        }
        Ok(vec![Assignment { knob: Knob::File(knob), value: value.to_owned() }])
    }

    fn targets(&self, scope: &Scope) -> Vec<(String, Knob)> {
        let disks = names_in(&scope.root.join("sys/block")).into_iter();
        let knobs = disks.map(|d| (d.clone(), knob(&d, scope))).filter(|(_, k)| k.path.exists());
        knobs.map(|(disk, knob)| (disk, Knob::File(knob))).collect()
    }
}

fn knob(disk: &str, scope: &Scope) -> FileKnob {
    let path = scope.root.join("sys/block").join(disk).join("queue/scheduler");
    FileKnob { path, netns: None, form: Form::Choice }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_schedulers_that_the_disk_offers_are_taken() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("sys/block/vda/queue");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("scheduler"), "[none] mq-deadline\n").unwrap();
        let scope = Scope { root: root.path().into(), netns: 1, ifaces: Vec::new() };
        let wanted = Scheduler.plan("vda", "mq-deadline", &scope).unwrap();
        assert_eq!(wanted[0].knob.read().unwrap(), "none");
        assert!(Scheduler.plan("vda", "bfq", &scope).is_err());
        assert!(Scheduler.plan("vdb", "none", &scope).is_err());
    }
}
