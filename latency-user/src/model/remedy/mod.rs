//! Remedies: changes of settings as data, from which commands, their undo and experiments are made.

pub mod knob;
pub mod shell;
pub mod value;

use serde::{Serialize, Serializer, ser::SerializeStruct};

use self::{
    knob::Knob,
    shell::{iface_option, quoted},
    value::Value,
};

/// Settings up to which an experiment is offered: more are no single idea.
const EXPERIMENT_SETTINGS: usize = 4;

/// A change of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The setting.
    pub knob: Knob,
    /// Its value now.
    pub now: Value,
    /// The value that is advised.
    pub advised: Value,
}

/// What to do about a finding: one or more changes, made together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// The changes, in the order in which they are made; undone in reverse.
    pub changes: Vec<Change>,
    /// A process in the network namespace in which they are made; `None`: our own.
    pub namespace: Option<u32>,
}

/// The next step after a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Change settings.
    Change(Remedy),
    /// Look at something: a command that changes nothing.
    Look(String),
}

impl Change {
    /// A change of `knob` from `now` to `advised`.
    pub fn new(knob: Knob, now: Value, advised: Value) -> Self {
        Self { knob, now, advised }
    }
}

impl Remedy {
    /// One change, in our own network namespace.
    pub fn one(knob: Knob, now: Value, advised: Value) -> Self {
        Self { changes: vec![Change::new(knob, now, advised)], namespace: None }
    }

    /// The command that makes the changes.
    pub fn command(&self) -> String {
        let set = self.changes.iter().map(|change| (&change.knob, &change.advised));
        self.inside(&commands(set.collect()))
    }

    /// The command that restores the values of now.
    pub fn undo(&self) -> String {
        let set = self.changes.iter().rev().map(|change| (&change.knob, &change.now));
        self.inside(&commands(set.collect()))
    }

    fn inside(&self, commands: &[String]) -> String {
        let inside = |command: &String| match self.namespace {
            None => command.clone(),
            Some(pid) => format!("nsenter --net=/proc/{pid}/ns/net {command}"),
        };
        commands.iter().map(inside).collect::<Vec<_>>().join("; ")
    }

    /// The settings for `experiment --set`; `None`: an experiment cannot make these changes.
    pub fn settings(&self) -> Option<Vec<String>> {
        if self.namespace.is_some() || self.changes.len() > EXPERIMENT_SETTINGS {
            return None;
        }
        self.changes.iter().map(|change| change.knob.tunable(&change.advised)).collect()
    }

    /// The experiment that tests it; `None`: an experiment cannot make these changes.
    fn experiment(&self, iface: Option<&str>) -> Option<String> {
        let mut command = "latency-user experiment".to_owned();
        for setting in self.settings()? {
            command.push_str(&format!(" --set {}", setting_word(&setting)));
        }
        if let Some(iface) = iface {
            command.push_str(&format!(" {}", iface_option(iface)));
        }
        Some(command + " --window 30s --rounds 3")
    }

    /// What happens while the values are set, each effect once.
    pub fn side_effects(&self) -> Vec<&'static str> {
        let mut effects: Vec<&str> =
            self.changes.iter().filter_map(|change| change.knob.side_effect()).collect();
        effects.dedup();
        effects
    }

    /// How to keep the first value over a reboot.
    pub fn persist(&self) -> Option<String> {
        let change = self.changes.first().filter(|_| self.namespace.is_none())?;
        change.knob.persist(&change.advised)
    }
}

/// A setting as a word: values of several numbers are in double quotes, as people write them.
fn setting_word(setting: &str) -> String {
    match setting.split_once('=') {
        Some((key, value)) if value.contains(' ') => format!("{}=\"{value}\"", quoted(key)),
        _ => quoted(setting),
    }
}

/// The commands that set knobs to values. Neighbouring files of several CPUs that get the same
/// value share a loop.
fn commands(set: Vec<(&Knob, &Value)>) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some((knob, value)) = set.get(at) {
        let run = match cpu_of(knob) {
            None => 1,
            Some((_, pattern)) => set[at..]
                .iter()
                .take_while(|(knob, other)| {
                    other == value && cpu_of(knob).is_some_and(|(_, other)| other == pattern)
                })
                .count(),
        };
        match cpu_of(knob) {
            Some((_, pattern)) if run > 1 => {
                let cpus: Vec<String> = set[at..at + run]
                    .iter()
                    .filter_map(|(knob, _)| Some(cpu_of(knob)?.0.to_string()))
                    .collect();
                commands.push(format!(
                    "for cpu in {}; do echo {value} > {pattern}; done",
                    cpus.join(" ")
                ));
            }
            _ => commands.push(knob.set(value)),
        }
        at += run;
    }
    commands
}

/// The CPU of a setting of each CPU, and its path with `$cpu` in the place of the number.
fn cpu_of(knob: &Knob) -> Option<(u32, String)> {
    let cpu = match knob {
        Knob::Governor { cpu } | Knob::EnergyPreference { cpu } | Knob::IdleState { cpu, .. } => {
            *cpu
        }
        _ => return None,
    };
    let path = knob.path()?;
    Some((cpu, format!("/{}", path.replacen(&format!("/cpu{cpu}/"), "/cpu$cpu/", 1))))
}

impl Step {
    /// The command.
    pub fn command(&self) -> String {
        match self {
            Self::Change(remedy) => remedy.command(),
            Self::Look(command) => command.clone(),
        }
    }

    /// The command that undoes it; `None`: it changes nothing.
    pub fn undo(&self) -> Option<String> {
        match self {
            Self::Change(remedy) => Some(remedy.undo()),
            Self::Look(_) => None,
        }
    }

    /// The command that shows whether it helped.
    pub fn confirm(&self, iface: Option<&str>) -> String {
        let experiment = match self {
            Self::Change(remedy) => remedy.experiment(iface),
            Self::Look(_) => None,
        };
        experiment.unwrap_or_else(|| trace(iface))
    }

    /// The remedy, if it is one.
    pub fn remedy(&self) -> Option<&Remedy> {
        match self {
            Self::Change(remedy) => Some(remedy),
            Self::Look(_) => None,
        }
    }
}

/// The `latency-user trace` command, for one interface or for all.
pub fn trace(iface: Option<&str>) -> String {
    let iface = iface.map(|name| format!("{} ", iface_option(name))).unwrap_or_default();
    format!("latency-user trace {iface}--duration 30s")
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Change", 4)?;
        object.serialize_field("setting", &self.knob.tunable(&self.advised))?;
        object.serialize_field("file", &self.knob.path().map(|path| format!("/{path}")))?;
        object.serialize_field("now", self.now.as_str())?;
        object.serialize_field("advised", self.advised.as_str())?;
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_change_gives_command_undo_and_experiment() {
        let knob = Knob::Sysctl("net.ipv4.tcp_rmem");
        let value = |most| Value::numbers(&[4096, 131_072, most]);
        let step = Step::Change(Remedy::one(knob, value(33_554_432), value(2_097_152)));
        assert_eq!(step.command(), "sysctl -w net.ipv4.tcp_rmem=\"4096 131072 2097152\"");
        assert_eq!(step.undo().unwrap(), "sysctl -w net.ipv4.tcp_rmem=\"4096 131072 33554432\"");
        assert_eq!(
            step.confirm(Some("-x")),
            "latency-user experiment --set sysctl:net.ipv4.tcp_rmem=\"4096 131072 2097152\" \
             --iface=-x --window 30s --rounds 3"
        );
    }

    #[test]
    fn cpus_with_the_same_value_share_a_loop() {
        let change = |cpu, now: &str| {
            let (now, new) = (Value::word(now).unwrap(), Value::word("performance").unwrap());
            Change::new(Knob::Governor { cpu }, now, new)
        };
        let changes = vec![change(2, "ondemand"), change(3, "ondemand"), change(7, "powersave")];
        let remedy = Remedy { changes, namespace: None };
        assert_eq!(
            remedy.command(),
            "for cpu in 2 3 7; do echo performance > \
             /sys/devices/system/cpu/cpu$cpu/cpufreq/scaling_governor; done"
        );
        assert_eq!(
            remedy.undo(),
            "echo powersave > /sys/devices/system/cpu/cpu7/cpufreq/scaling_governor; \
             for cpu in 3 2; do echo ondemand > \
             /sys/devices/system/cpu/cpu$cpu/cpufreq/scaling_governor; done"
        );
    }

    #[test]
    fn names_are_quoted_and_namespaces_entered() {
        let knob = |iface: &str| Knob::Rps { iface: iface.into(), queue: 0 };
        let remedy =
            |iface: &str| Remedy::one(knob(iface), Value::cpu_mask(&[]), Value::cpu_mask(&[0, 1]));
        assert_eq!(
            remedy("a;b").command(),
            "echo 00000003 > '/sys/class/net/a;b/queues/rx-0/rps_cpus'"
        );
        let other = Remedy {
            namespace: Some(77),
            ..Remedy::one(Knob::Sysctl("net.ipv4.tcp_rmem"), Value::number(1), Value::number(2))
        };
        assert_eq!(other.command(), "nsenter --net=/proc/77/ns/net sysctl -w net.ipv4.tcp_rmem=2");
        assert_eq!(other.settings(), None);
    }
}
