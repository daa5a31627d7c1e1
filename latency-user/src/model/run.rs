//! The run: what was measured, where, and by which probes.

use std::{borrow::Cow, time::SystemTime};

use latency_common::stage::Stage;
use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};

use super::{
    method::Method,
    note::{self, Note},
    stage,
};

/// The default minimum duration of a stall, ns.
pub const DEFAULT_THRESHOLD_NS: u64 = 1_000_000;

/// How events get from the kernel into histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Counted in the kernel, in rows.
    Maps,
    /// Sent one by one through the ring buffer and counted in user space.
    Ring,
    /// Both at once, so that they can be compared.
    Both,
}

impl Transport {
    /// Whether the kernel side counts in rows.
    pub const fn counts_in_rows(self) -> bool {
        matches!(self, Self::Maps | Self::Both)
    }

    /// Whether the kernel side sends events.
    pub const fn sends_events(self) -> bool {
        matches!(self, Self::Ring | Self::Both)
    }
}

/// How one stage was probed in a run, or why it was not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SelectedProbe {
    /// The stage.
    #[serde(with = "stage")]
    pub stage: Stage,
    /// The method in use; `None`: the stage is not timed.
    pub method: Option<Method>,
    /// The kernel's name of what the programs are attached to.
    pub at: String,
    /// Notes: an approximation, a method that does not work, the reason why it is not timed.
    #[serde(
        default,
        alias = "note",
        deserialize_with = "note::notes",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub notes: Vec<Note>,
}

/// The entries that this version understands: a newer version may know more stages and methods.
fn known_probes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SelectedProbe>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Entry {
        Known(SelectedProbe),
        Unknown(IgnoredAny),
    }
    let entries = Vec::<Entry>::deserialize(deserializer)?;
    Ok(entries
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Known(probe) => Some(probe),
            Entry::Unknown(_) => None,
        })
        .collect())
}

/// What the sampling clock counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SampleClock {
    /// Time, by a timer: it ticks at equal distances, but not while interrupts are off.
    #[default]
    Time,
    /// Cycles of the CPU, by an interrupt that on most machines cannot be masked: it stands still
    /// while the CPU idles and slows down with it.
    Cycles,
}

impl SampleClock {
    /// All, the default one first.
    pub const ALL: [Self; 2] = [Self::Time, Self::Cycles];

    /// Its name, in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Cycles => "cycles",
        }
    }

    /// Whether it is the one of recordings that do not say.
    fn is_time(&self) -> bool {
        *self == Self::Time
    }
}

/// When a CPU has a sampling clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SampleWhen {
    /// Always: every stall has stacks, and idle CPUs are woken.
    #[default]
    Always,
    /// For a minute after each of its stalls, and else a slow one: what does not stall is hardly
    /// disturbed, and most first stalls have no stacks.
    Stalled,
}

impl SampleWhen {
    /// Its name, in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Stalled => "stalled",
        }
    }

    /// Whether it is the one of recordings that do not say.
    fn is_always(&self) -> bool {
        *self == Self::Always
    }
}

/// How stacks of stalls were taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampling {
    /// Ticks of the sampling clock per second on each CPU; 0: no stacks were taken.
    pub hz: u64,
    /// What it counts.
    #[serde(default, skip_serializing_if = "SampleClock::is_time")]
    pub clock: SampleClock,
    /// When each CPU had the clock.
    #[serde(default, skip_serializing_if = "SampleWhen::is_always")]
    pub when: SampleWhen,
    /// Notes: what the clock cannot sample, why there are no symbols.
    #[serde(default, alias = "note", deserialize_with = "note::notes")]
    pub notes: Vec<Note>,
}

impl Sampling {
    /// Ticks per second that every stall had; 0: none.
    pub fn hz_of_all_stalls(&self) -> u64 {
        if self.when == SampleWhen::Always { self.hz } else { 0 }
    }
}

/// Header of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Name of the host.
    pub host: String,
    /// Release of the kernel.
    pub kernel: String,
    /// When tracing started, RFC 3339, UTC.
    pub started_at: String,
    /// How long it was traced, seconds.
    pub duration_s: f64,
    /// Interfaces whose queues are shown; empty: all.
    pub ifaces: Vec<String>,
    /// Durations at or above it are stalls, ns.
    pub threshold_ns: u64,
    /// How events became histograms.
    pub transport: Transport,
    /// One entry for each requested stage.
    #[serde(deserialize_with = "known_probes")]
    pub probes: Vec<SelectedProbe>,
    /// How stacks of stalls were taken.
    #[serde(default)]
    pub sampling: Sampling,
    /// Possible CPUs of the machine.
    pub cpus: u32,
    /// Version of this program.
    pub version: Cow<'static, str>,
}

impl Run {
    /// Takes over what may change in the middle of a run: how stages are timed and stacks are
    /// sampled. Returns whether something did.
    pub fn change_to(&mut self, now: &Self) -> bool {
        let is_other = self.probes != now.probes || self.sampling != now.sampling;
        if is_other {
            self.probes.clone_from(&now.probes);
            self.sampling.clone_from(&now.sampling);
        }
        is_other
    }

    /// When tracing started; `None`: the text is not a time.
    pub fn started(&self) -> Option<SystemTime> {
        humantime::parse_rfc3339(&self.started_at).ok()
    }
}
