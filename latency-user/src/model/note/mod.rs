//! Notes: what a reader must know in addition to the numbers, each with a stable code.
//!
//! Every warning, fallback, degradation and difference that this program reports is one of these.
//! Their texts are in `text`, and nowhere else. In JSON and recordings a note carries its `code`,
//! its fields and its `text`, so that a program can branch on the code and an older version can
//! still show the notes of a newer one.

mod json;
mod obstacle;
mod text;

use std::cmp::Ordering;

use latency_common::stage::Stage;
use serde::{Deserialize, Serialize};

pub(super) use self::json::notes;
pub use self::obstacle::Obstacle;
use super::{method::Method, settings::Difference, stage, unit::Unit};

/// Which of two recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompareSide {
    /// The one before the change.
    Before,
    /// The one after it.
    After,
}

/// A stage that was disabled during a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageEnd {
    /// The stage.
    #[serde(with = "stage")]
    pub stage: Stage,
    /// When, seconds from the start of the run.
    pub after_s: f64,
}

/// Something that a reader must know. Fields ending in `_s` are seconds, in `_ns` nanoseconds.
///
/// ```
/// use latency_user::model::note::Note;
///
/// let note = Note::LinkLost { iface: "eth0".into() };
/// assert_eq!(note.to_string(), "eth0 lost its link");
/// let json = serde_json::to_string(&note)?;
/// assert_eq!(json, r#"{"code":"link-lost","iface":"eth0","text":"eth0 lost its link"}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(remote = "Self", tag = "code", rename_all = "kebab-case")]
pub enum Note {
    // How stages are probed.
    /// A better method does not work here.
    ProbeFallback {
        /// The method.
        method: Method,
        /// Why it does not work.
        obstacle: Obstacle,
    },
    /// The requested method does not exist for this stage.
    NoSuchMethod {
        /// That method; `None`: no method can be used.
        method: Option<Method>,
    },
    /// With tracepoints, a NAPI poll starts where the previous one ended.
    ApproximatePolls,
    /// With tracepoints, a run of NET_RX ends with its last poll.
    RunEndsWithLastPoll,
    /// Busy polls of processes do not go through the probed function.
    BusyPollsUnseen,
    /// The softirq runs in a task: its wait includes that the task is scheduled.
    WaitsForTask,
    /// Softirqs can be preempted: what the stage times may contain other tasks.
    PreemptibleRuns {
        /// Whether their time is measured and the longest is named.
        named: bool,
    },
    /// Handlers of hard IRQs run in tasks, which the stage does not time.
    ThreadedIrqs,
    /// Merged recordings probed a stage by different methods.
    ProbedDifferently {
        /// Names of the methods, `none` for a recording without the stage.
        methods: Vec<String>,
    },
    /// The programs took more than `--max-overhead`, and this stage was disabled.
    StageDisabled {
        /// When, seconds from the start of the run.
        after_s: f64,
        /// Share of the busiest CPU that all programs took, 0 to 1.
        share: f64,
        /// The limit.
        limit: f64,
    },
    /// The kernel does not measure how long programs run.
    RunTimeUnknown {
        /// The kernel's answer; `None`: CAP_SYS_ADMIN is missing.
        error: Option<String>,
    },
    /// A capability is missing.
    MissingCapability {
        /// Its name.
        capability: String,
        /// What cannot be done without it.
        consequence: String,
    },

    // How stacks are sampled.
    /// Sampling was switched off.
    SamplingOff,
    /// Sampling was requested and does not work.
    NoStacks {
        /// Why.
        reason: String,
    },
    /// The kernel hides its symbols, so stacks show addresses.
    SymbolsHidden,
    /// The sampling clock does not tick while interrupts are off.
    SamplerBlindSpot,
    /// The sampling clock counts cycles of the CPU.
    SampledByCycles,
    /// The sampling clock of a CPU runs for a while after each of its stalls.
    SampledWhenStalled,
    /// CPUs came online after the start: the sampling clock does not tick there.
    CpusNotSampled {
        /// Their numbers.
        cpus: Vec<u32>,
    },
    /// Merged recordings each have their own sampling.
    SampledPerRecording,
    /// There are no stacks, because no stall was sampled.
    NoSamples,

    // Problems of a recording.
    /// Writing a recording failed.
    RecordingEnded {
        /// Why.
        error: String,
    },
    /// The reader of the live output did not read its end.
    OutputNotRead {
        /// Lines that were dropped.
        lines: u64,
    },
    /// The machine's settings could not be read.
    SettingsUnread {
        /// Why.
        error: String,
    },
    /// The ledger does not balance.
    LedgerUnbalanced,
    /// The last line of a file has no line end.
    LineCutShort {
        /// The file.
        file: String,
        /// Number of the line.
        line: u64,
        /// Its length.
        bytes: u64,
    },
    /// The last interval of a file is incomplete.
    IntervalCutShort {
        /// The file.
        file: String,
        /// Number of its histograms.
        histograms: u64,
    },
    /// A file has histograms of another precision.
    RoundedToBuckets {
        /// The file.
        file: String,
    },
    /// Values of a log are not in ns: its own maxima say so.
    UnitByMaximum {
        /// The file.
        file: String,
        /// Their unit.
        unit: Unit,
    },
    /// Values are above the last bucket.
    AboveLastBucket {
        /// The file.
        file: String,
        /// How many.
        values: u64,
    },
    /// A log has no histogram.
    NoHistograms {
        /// The file.
        file: String,
    },
    /// Two merged recordings are of the same host and start.
    RecordedTwice {
        /// The second one.
        file: String,
        /// The host.
        host: String,
        /// The start of both.
        started_at: String,
    },
    /// The intervals of a merged recording are longer than asked for.
    GridWidened {
        /// How long they are, s.
        interval_s: f64,
    },
    /// A recording has no end.
    RunNotFinished {
        /// The file.
        file: String,
    },

    // What differs between two recordings.
    /// The hosts differ.
    HostsDiffer {
        /// Its name before.
        before: String,
        /// Its name after.
        after: String,
    },
    /// The kernels differ.
    KernelsDiffer {
        /// Its release before.
        before: String,
        /// Its release after.
        after: String,
    },
    /// The thresholds differ.
    ThresholdsDiffer {
        /// Before.
        before_ns: u64,
        /// After.
        after_ns: u64,
    },
    /// A stage was probed by different methods.
    MethodsDiffer {
        /// The stage.
        #[serde(with = "stage")]
        stage: Stage,
        /// Its method before.
        before: Method,
        /// Its method after.
        after: Method,
    },
    /// A stage was timed on one side only.
    StageTimedOnOneSide {
        /// The stage.
        #[serde(with = "stage")]
        stage: Stage,
        /// Where it was timed.
        side: CompareSide,
    },
    /// Stages were disabled during one of the runs.
    StagesDisabled {
        /// Which recording.
        side: CompareSide,
        /// The stages.
        stages: Vec<StageEnd>,
    },
    /// The hypervisor took different shares of the CPUs.
    StealDiffers {
        /// Share of the time of all CPUs, before.
        before: f64,
        /// After.
        after: f64,
    },
    /// Settings of the machine differ.
    SettingsDiffer {
        /// The first few.
        differences: Vec<Difference>,
        /// How many more there are.
        more: u64,
    },
    /// The logs are another program's.
    ForeignLogs,
    /// A recording was merged without its intervals.
    Merged {
        /// Which recording.
        side: CompareSide,
    },
    /// Some series are in one recording only.
    SeriesOnOneSide {
        /// Where they are.
        side: CompareSide,
        /// How many.
        series: u64,
    },
    /// The values of two logs are probably in different units.
    UnitsDiffer {
        /// By about which factor those before are larger; below 1: smaller.
        factor: f64,
    },
    /// Two recordings cannot show what made them differ.
    CauseNotShown,
    /// A recording has too few intervals for a test.
    TooFewIntervals {
        /// Which recording.
        side: CompareSide,
        /// How many it has.
        intervals: u64,
        /// How many are needed.
        needed: u64,
    },
    /// There are too few units a side for a test.
    TooFewUnits {
        /// Units before.
        before: u64,
        /// Units after.
        after: u64,
    },
    /// The recordings have no series in common.
    NoCommonSeries,

    // What happened in an experiment.
    /// The remaining windows could not have shown a halving.
    CannotBecomeClear {
        /// Windows that would, in all; absent: out of reach.
        #[serde(skip_serializing_if = "Option::is_none")]
        windows: Option<u64>,
    },
    /// irqbalance is running and may move IRQs.
    IrqbalanceRuns,
    /// The number of channels and their CPUs are put back, not the RSS table.
    ChannelsForgetCpus,
    /// What the kernel removes when this is set does not come back.
    SettingRemovesState {
        /// The setting.
        setting: String,
        /// What it removes.
        what: String,
    },
    /// An interface lost its link.
    LinkLost {
        /// The interface.
        iface: String,
    },
    /// This process did not run while the setting was changed, so the watchdog put it back.
    PutBackByWatchdog,
    /// The watchdog ended and could not be replaced.
    WatchdogLost {
        /// Why.
        error: String,
    },
    /// A quantile exceeded the limit of `--abort-if`.
    QuantileAboveLimit {
        /// The rule.
        rule: String,
        /// What the quantile reached.
        reached_ns: u64,
    },
    /// Stalls were much more frequent than without the change.
    StallRateAboveLimit {
        /// Stalls in one second.
        per_second: f64,
        /// The highest rate without the change, over as long a time.
        baseline_per_second: f64,
    },

    /// A note of a newer version, or a sentence of schema 1.
    #[serde(skip)]
    Other {
        /// Its code.
        code: String,
        /// Its text.
        text: String,
    },
}

impl Note {
    /// The code of a note that is a plain sentence.
    pub const TEXT: &'static str = "text";

    /// The key for comparisons: notes are equal if their codes and texts are.
    fn key(&self) -> (String, String) {
        (self.code(), self.to_string())
    }
}

impl PartialEq for Note {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Note {}

impl Ord for Note {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Note {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests;
