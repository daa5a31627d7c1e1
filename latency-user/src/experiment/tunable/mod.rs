//! Tunables: what an experiment may change, each with a line in [`ALL`].
//!
//! A tunable turns `TARGET=VALUE` into knobs with their values and refuses values outside the
//! bounds that the kernel states. Reading, writing, reading back and putting back are the same for
//! all ([`super::change`]).

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use super::{knob::Knob, netns};
use crate::{
    host::cpu::cpus,
    model::{failure::Failure, note::Note},
};

mod irq;
mod napi;
mod nic;
mod offload;
mod scheduler;
mod steering;
mod sysctl;

/// Where to search for knobs.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The directory that contains `proc` and `sys`; `/` except in tests.
    pub root: PathBuf,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Interfaces to list; empty: all.
    pub ifaces: Vec<String>,
}

/// A value for a knob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The knob.
    pub knob: Knob,
    /// The value to try.
    pub value: String,
}

/// One way to change the machine.
pub trait Tunable: Sync {
    /// The word in front of the colon.
    fn name(&self) -> &'static str;

    /// What follows it, such as `NAME=VALUE`.
    fn usage(&self) -> &'static str;

    /// What it does, for the help.
    fn describe(&self) -> &'static str;

    /// The knobs that `target=value` refers to, with their values. Runs inside the namespace.
    ///
    /// # Errors
    ///
    /// When the target is not there, or the value is outside what the kernel states.
    fn plan(&self, target: &str, value: &str, scope: &Scope) -> Result<Vec<Assignment>>;

    /// Knobs that may move when the target is set, and are put back after it. Runs inside the
    /// namespace.
    fn followers(&self, _target: &str, _scope: &Scope) -> Vec<Knob> {
        Vec::new()
    }

    /// A note on what may disturb an experiment with it; most have none.
    fn warning(&self, _target: &str, _scope: &Scope) -> Option<Note> {
        None
    }

    /// The targets that [`list`] shows, with their knobs. Runs inside the namespace.
    fn targets(&self, scope: &Scope) -> Vec<(String, Knob)>;
}

/// All tunables.
pub const ALL: &[&dyn Tunable] = &[
    &sysctl::Sysctl,
    &irq::Irq,
    &steering::RPS,
    &steering::XPS,
    &napi::DEFER_HARD_IRQS,
    &napi::GRO_FLUSH_TIMEOUT,
    &napi::THREADED,
    &offload::Offload,
    &nic::RING,
    &nic::CHANNELS,
    &nic::COALESCE,
    &scheduler::Scheduler,
];

/// A target and its current value.
pub struct Listed {
    /// `sysctl:net.ipv4.tcp_rmem`.
    pub key: String,
    /// Its content, or why it cannot be read.
    pub value: Result<String>,
}

/// The knobs that `TUNABLE:TARGET=VALUE` refers to, with their values.
///
/// # Errors
///
/// When there is no such tunable, or as [`Tunable::plan`].
pub fn plan(setting: &str, scope: &Scope) -> Result<Vec<Assignment>> {
    let usage = |why: String| {
        let names: Vec<_> = ALL.iter().map(|t| format!("{}:{}", t.name(), t.usage())).collect();
        anyhow!(Failure::usage(why).hint(format!("there are: {}", names.join(", "))))
    };
    let parts = setting
        .split_once('=')
        .and_then(|(key, value)| Some((key.split_once(':')?, value)))
        .filter(|((_, target), value)| !target.is_empty() && !value.trim().is_empty());
    let Some(((name, target), value)) = parts else {
        return Err(usage(format!("{setting:?} is not TUNABLE:TARGET=VALUE")));
    };
    let Some(tunable) = by_name(name) else {
        return Err(usage(format!("no tunable {name:?}")));
    };
    inside(scope, || tunable.plan(target, value.trim(), scope))
}

/// Notes on what may disturb an experiment with these settings.
pub fn warnings(settings: &[String], scope: &Scope) -> Vec<Note> {
    let found = settings.iter().filter_map(|setting| parts(setting));
    let mut warnings: Vec<Note> =
        found.filter_map(|(tunable, target)| tunable.warning(target, scope)).collect();
    warnings.dedup();
    warnings
}

/// Knobs that may move with these settings.
///
/// # Errors
///
/// When the namespace cannot be entered.
pub fn followers(settings: &[String], scope: &Scope) -> Result<Vec<Knob>> {
    let found = settings.iter().filter_map(|setting| parts(setting));
    inside(scope, || {
        Ok(found.flat_map(|(tunable, target)| tunable.followers(target, scope)).collect())
    })
}

/// The tunable and its target, of `TUNABLE:TARGET=VALUE`.
fn parts(setting: &str) -> Option<(&'static dyn Tunable, &str)> {
    let (name, target) = setting.split_once('=')?.0.split_once(':')?;
    Some((by_name(name)?, target))
}

fn by_name(name: &str) -> Option<&'static dyn Tunable> {
    ALL.iter().find(|tunable| tunable.name() == name).copied()
}

/// The targets of the tunable, with their current values.
///
/// # Errors
///
/// When the namespace cannot be entered.
pub fn list(tunable: &dyn Tunable, scope: &Scope) -> Result<Vec<Listed>> {
    let targets = inside(scope, || Ok(tunable.targets(scope)))?;
    let listed = targets.into_iter().map(|(target, knob)| Listed {
        key: format!("{}:{target}", tunable.name()),
        value: knob.read(),
    });
    Ok(listed.collect())
}

fn inside<T: Send>(scope: &Scope, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let netns = (scope.root == Path::new("/")).then_some(scope.netns);
    netns::within(netns, true, body)
}

impl Scope {
    /// The namespace of per-namespace knobs.
    fn netns(&self) -> Option<u32> {
        (self.root == Path::new("/")).then_some(self.netns)
    }

    /// The interfaces to list.
    fn interfaces(&self) -> Vec<String> {
        let names = names_in(&self.root.join("sys/class/net"));
        names.into_iter().filter(|n| self.ifaces.is_empty() || self.ifaces.contains(n)).collect()
    }

    /// The directory of an interface.
    fn interface(&self, name: &str) -> Result<PathBuf, Failure> {
        let directory = self.root.join("sys/class/net").join(name);
        let is_name = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
        if is_name && directory.is_dir() {
            return Ok(directory);
        }
        Err(Failure::new(format!("no interface {name:?} in this network namespace"))
            .hint(format!("there are: {}", names_in(&self.root.join("sys/class/net")).join(", "))))
    }
}

/// The subdirectories of a directory, sorted.
fn names_in(directory: &Path) -> Vec<String> {
    let entries = directory.read_dir().into_iter().flatten().filter_map(Result::ok);
    let directories = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<_> =
        directories.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// An integer within bounds.
fn parse_number(what: &str, value: &str, least: u64, most: u64) -> Result<u64, Failure> {
    match value.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(Failure::new(format!("{what}: {value:?} is not a number from {least} to {most}"))),
    }
}

/// The CPUs of a list such as `0-3,6`, all of which must be online.
fn online_cpus(list: &str, online: &[u32]) -> Result<Vec<u32>, Failure> {
    let cpus = match cpus::parse_list(&list.replace(' ', "")) {
        Ok(cpus) if !cpus.is_empty() => cpus,
        _ => {
            let why = format!("{list:?} is not a list of CPUs: write it like 0-3,6");
            return Err(Failure::new(why));
        }
    };
    match cpus.iter().find(|cpu| !online.contains(cpu)) {
        None => Ok(cpus),
        Some(cpu) => Err(Failure::new(format!("CPU {cpu} of {list:?} is not online"))
            .hint(format!("there are: {}", cpus::list(online)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::exit::Exit;

    #[test]
    fn nonsense_is_refused_with_the_list() {
        let scope = Scope { root: "/no".into(), netns: 0, ifaces: Vec::new() };
        for setting in ["", "x", "sysctl:=1", "sysctl:a=", "magic:a=1", "a=1", "sysctl:a"] {
            let error = plan(setting, &scope).unwrap_err();
            let failure = error.downcast_ref::<Failure>().unwrap();
            assert_eq!(failure.exit, Exit::Usage, "{setting}");
            assert!(failure.hint.as_ref().unwrap().contains("sysctl:NAME=VALUE"));
        }
    }
}
