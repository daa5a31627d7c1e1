//! The texts of notes and obstacles, each written once.

use std::fmt;

use super::{CompareSide, Note, Obstacle};

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProbeFallback { method, obstacle } => write!(f, "no {method}: {obstacle}"),
            Self::NoSuchMethod { method: Some(method) } => {
                write!(f, "the stage has no {method} method")
            }
            Self::NoSuchMethod { method: None } => f.write_str("the stage has no usable method"),
            Self::ApproximatePolls => f.write_str(
                "approximate: from the end of the previous poll (or the softirq entry) to its own \
                 end; polls outside NET_RX (threaded NAPI, busy polling) are timed only directly \
                 after one that used up its budget",
            ),
            Self::RunEndsWithLastPoll => f.write_str(
                "if napi_poll is timed too, a run ends with its last poll, by the same clock \
                 reading; time after the poll is added only if it exceeds a timer tick",
            ),
            Self::BusyPollsUnseen => f.write_str(
                "busy polls of processes (SO_BUSY_POLL, epoll) do not go through __napi_poll: \
                 they are not seen",
            ),
            Self::WaitsForTask => f.write_str(
                "PREEMPT_RT: softirqs run in tasks (ksoftirqd, IRQ threads), so the wait includes \
                 the scheduling of that task; since 6.10, packets steered to another CPU (RPS) \
                 wait for a thread there (backlog_napi) instead: that wait is not timed",
            ),
            Self::PreemptibleRuns { named: true } => f.write_str(
                "PREEMPT_RT: softirqs can be preempted, so a run may contain other tasks; their \
                 time is measured, and the longest is named in each stall",
            ),
            Self::PreemptibleRuns { named: false } => f.write_str(
                "PREEMPT_RT: softirqs can be preempted, so the time may contain other tasks",
            ),
            Self::ThreadedIrqs => f.write_str(
                "IRQs are threaded (PREEMPT_RT or threadirqs): most drivers' handlers run in \
                 tasks, which are not timed; what is timed wakes the task",
            ),
            Self::ProbedDifferently { methods } => {
                write!(f, "probed differently by recording: {}", methods.join(", "))
            }
            Self::StageDisabled { after_s, share, limit } => write!(
                f,
                "disabled after {after_s:.1} s: overhead {} of the busiest CPU > {}",
                percent(*share),
                percent(*limit)
            ),
            Self::RunTimeUnknown { error: None } => f.write_str(
                "run-time statistics need CAP_SYS_ADMIN: the programs' time is not known",
            ),
            Self::RunTimeUnknown { error: Some(error) } => {
                write!(f, "run-time statistics cannot be switched on: {error}")
            }
            Self::MissingCapability { capability, consequence } => {
                write!(f, "{capability} is missing: {consequence}")
            }
            Self::SamplingOff => f.write_str("stack sampling is switched off"),
            Self::NoStacks { reason } => write!(f, "no stacks: {reason}"),
            Self::SymbolsHidden => f.write_str(
                "stacks show addresses: the kernel hides its symbols (kernel.kptr_restrict)",
            ),
            Self::SamplerBlindSpot => f.write_str(
                "the sampling clock does not tick while interrupts are off: hard-IRQ handlers and \
                 sections with interrupts disabled have no stacks",
            ),
            Self::SampledByCycles => f.write_str(
                "the sampling clock counts the CPU's cycles, by an interrupt that cannot be masked: \
                 code with interrupts off has stacks too",
            ),
            Self::SampledWhenStalled => f.write_str(
                "a CPU has the sampling clock for a minute after a stall: most first ones have no \
                 stacks (--sample-when always)",
            ),
            Self::CpusNotSampled { cpus } => {
                let numbers: Vec<String> = cpus.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "CPU {} came online after the start: its stalls are counted and timed, and \
                     have no stacks",
                    numbers.join(", ")
                )
            }
            Self::SampledPerRecording => f.write_str("each merged recording has its own sampling"),
            Self::NoSamples => f.write_str("no stacks: no stall was sampled"),
            Self::RecordingEnded { error } => write!(f, "the recording ends here: {error}"),
            Self::OutputNotRead { lines } => {
                write!(f, "nobody reads the output: {lines} lines of it are lost")
            }
            Self::SettingsUnread { error } => write!(f, "the recording has no settings: {error}"),
            Self::LedgerUnbalanced => f.write_str("the ledger does not balance: see its sums"),
            Self::LineCutShort { file, line, bytes } => {
                write!(f, "{file}:{line}: the last line is cut short: {bytes} bytes are left out")
            }
            Self::IntervalCutShort { file, histograms } => write!(
                f,
                "{file}: the last interval is cut short: its {histograms} histograms are left out"
            ),
            Self::RoundedToBuckets { file } => {
                write!(f, "{file}: histograms of another precision: rounded to buckets of 0.8%")
            }
            Self::UnitByMaximum { file, unit } => write!(
                f,
                "{file}: values are in {}: so its own maxima (Interval_Max) say; --unit overrides",
                unit.name()
            ),
            Self::AboveLastBucket { file, values } => write!(
                f,
                "{file}: {values} values above 68.7 s are in one bucket: their quantiles are shown \
                 as the maximum"
            ),
            Self::NoHistograms { file } => write!(f, "{file}: the log has no histogram"),
            Self::RecordedTwice { file, host, started_at } => write!(
                f,
                "{file}: another recording of {host} started at {started_at}, too: is it merged twice?"
            ),
            Self::GridWidened { interval_s } => {
                write!(f, "the sum has intervals of {interval_s} s: shorter ones would not fit in memory")
            }
            Self::RunNotFinished { file } => write!(
                f,
                "{file}: the run did not finish: its ledger and its overhead are not known"
            ),
            Self::HostsDiffer { before, after } => {
                write!(f, "different hosts: {before} before, {after} after")
            }
            Self::KernelsDiffer { before, after } => {
                write!(f, "different kernels: {before} before, {after} after")
            }
            Self::ThresholdsDiffer { before_ns, after_ns } => write!(
                f,
                "different thresholds: {before_ns} ns before, {after_ns} ns after; the higher one \
                 is used for both, to the precision of a bucket (0.8%)"
            ),
            Self::MethodsDiffer { stage, before, after } => {
                write!(f, "{} was probed differently: {before} before, {after} after", stage.name())
            }
            Self::StageTimedOnOneSide { stage, side } => {
                write!(f, "{} was timed only {side}", stage.name())
            }
            Self::StagesDisabled { side, stages } => {
                let stages: Vec<String> = stages
                    .iter()
                    .map(|end| format!("{} after {:.1} s", end.stage.name(), end.after_s))
                    .collect();
                let stages = stages.join(", ");
                write!(f, "stages disabled in the recording {side} (--max-overhead): {stages}")
            }
            Self::StealDiffers { before, after } => write!(
                f,
                "the hypervisor took {:.2} % of the CPUs before, {:.2} % after: stalls that it \
                 causes are no effect of a change",
                before * 100.0,
                after * 100.0
            ),
            Self::SettingsDiffer { differences, more } => {
                let mut named: Vec<String> = differences.iter().map(difference).collect();
                if *more > 0 {
                    named.push(format!("and {more} more"));
                }
                write!(f, "different settings: {}", named.join("; "))
            }
            Self::ForeignLogs => f.write_str("logs of another program: values are taken as ns"),
            Self::Merged { side } => write!(
                f,
                "the recording {side} was merged into one interval: its course over time is lost"
            ),
            Self::SeriesOnOneSide { side, series } => {
                write!(f, "{series} series recorded only {side} are left out")
            }
            Self::UnitsDiffer { factor } => write!(
                f,
                "typical values before are {factor} times those after: are they in different \
                 units? --unit says in which"
            ),
            Self::CauseNotShown => f.write_str(
                "two recordings show that they differ, not what made them differ: `latency-user \
                 experiment --set ...` measures with and without a change in turn, and `latency-user \
                 compare --before FILE... --after FILE...` takes several recordings a side",
            ),
            Self::TooFewIntervals { side, intervals, needed } => write!(
                f,
                "the recording {side} has {intervals} intervals; at least {needed} are needed to \
                 see how stalls cluster: the bounds assume that they do not"
            ),
            Self::TooFewUnits { before, after } => write!(
                f,
                "{before} before and {after} after: at least 5 in all, and 2 a side, are needed to \
                 tell a difference from chance"
            ),
            Self::CannotBecomeClear { windows: Some(windows) } => write!(
                f,
                "the windows vary so much that about {windows} would be needed to show a halving"
            ),
            Self::CannotBecomeClear { windows: None } => {
                f.write_str("the windows vary too much for any number of them to show a halving")
            }
            Self::NoCommonSeries => f.write_str("no series is in both recordings"),
            Self::IrqbalanceRuns => f.write_str(
                "irqbalance is running and may move IRQs: an affinity that it sets is not \
                 overwritten and ends the experiment",
            ),
            Self::ChannelsForgetCpus => f.write_str(
                "channels: their number and the CPUs of queues (RPS, XPS, IRQs) are put back; the \
                 table that spreads flows over queues (ethtool -x) is not",
            ),
            Self::SettingRemovesState { setting, what } => {
                write!(f, "{setting}: the kernel may remove {what}, which do not come back")
            }
            Self::LinkLost { iface } => write!(f, "{iface} lost its link"),
            Self::PutBackByWatchdog => f.write_str(
                "this process did not run for longer than a window while the setting was changed, \
                 so the watchdog put it back",
            ),
            Self::WatchdogLost { error } => {
                write!(f, "the watchdog ended, and another could not be started: {error}")
            }
            Self::QuantileAboveLimit { rule, reached_ns } => {
                let reached = std::time::Duration::from_nanos(*reached_ns);
                write!(f, "{rule}: it reached {}", humantime::format_duration(reached))
            }
            Self::StallRateAboveLimit { per_second, baseline_per_second } => write!(
                f,
                "{per_second:.1} stalls a second, at most {baseline_per_second:.1} without the change \
                 over as long a time"
            ),
            Self::Other { text, .. } => f.write_str(text),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDefined => f.write_str("the stage has no such method"),
            Self::NoKprobes => {
                f.write_str("the kernel has no kprobes (CONFIG_KPROBES or CONFIG_KPROBE_EVENTS)")
            }
            Self::NoTracepoint { tracepoint } => {
                write!(f, "the kernel has no tracepoint {tracepoint}")
            }
            Self::NoFunctionType { function } => {
                write!(f, "the kernel has no function {function} in its type information")
            }
            Self::NoFunction { function } => {
                write!(f, "the kernel has no function {function} to probe: inlined, or renamed")
            }
            Self::LoadRefused { error, verifier: Some(last) } => {
                write!(f, "the kernel refuses to load the program: {error} ({last})")
            }
            Self::LoadRefused { error, verifier: None } => {
                write!(f, "the kernel refuses to load the program: {error}")
            }
            Self::AttachRefused { call, error } => {
                write!(f, "the kernel refuses to attach the program: {call}: {error}")
            }
            Self::NoTrampoline => f.write_str(
                "the kernel attaches no trampoline to the function (error 524); known reasons: x86 \
                 has none for more than six arguments before Linux 6.6, 64-bit Arm has none before \
                 6.4",
            ),
            Self::Failed { error } => f.write_str(error),
        }
    }
}

impl fmt::Display for CompareSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::After => "after",
        })
    }
}

fn difference(diff: &super::Difference) -> String {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".into());
    format!("{} is {} before, {} after", diff.name, value(&diff.before), value(&diff.after))
}

/// `12%`, `1.3%`, `0.04%`
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        10.0.. => format!("{percent:.0}%"),
        1.0..10.0 => format!("{percent:.1}%"),
        _ => format!("{percent:.2}%"),
    }
}
