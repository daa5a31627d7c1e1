//! Arguments of `trace`.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, ValueHint};
use clap_complete::ArgValueCandidates;
use latency_common::stage::Stage;

use crate::{
    cli::values::{self, Format, SampleClockArg, SampleWhenArg, TransportArg},
    collect::config::{Config, DEFAULT_RECORDS_PER_SECOND, DEFAULT_RING_EVENTS, default_stages},
    commands::tracer::DaemonArguments,
    kernel::probes::selection::ProbeChoice,
    measure::MeasureConfig,
    model::{failure::Failure, run::SampleWhen},
};

/// What to trace, for how long, and where the result goes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  Watch the queues of eth0 until Ctrl-C:
      latency-user trace --iface eth0
  Half a minute into a recording, stalls from 500 us on:
      latency-user trace --iface eth0 --duration 30s --threshold 500us \\
          --output before.hlog
  While a load test runs, as JSON:
      latency-user trace --format json -- ./load-test.sh > trace.jsonl
  For hours beside production traffic, at a bounded cost:
      latency-user trace --max-overhead 1% --interval 10s --output night.hlog
  On another machine, shown on this one:
      ssh HOST latency-user trace --output - --duration 30s | latency-user report -
  What else ran in softirq context:
      latency-user trace --stages rx_wait,net_rx,softirq --duration 10s")]
pub struct Arguments {
    /// Only show queues and IRQs of IF (repeatable) [default: all]
    #[arg(short, long, value_name = "IF", help_heading = "What",
          add = ArgValueCandidates::new(values::interfaces))]
    pub iface: Vec<String>,
    /// Time only these stages: irq, rx_wait, net_rx, napi_poll, tcp_collapse, softirq
    /// [default: all but softirq, as far as the kernel can]
    #[arg(short, long, value_name = "STAGE,..", help_heading = "What",
          value_parser = values::stage, value_delimiter = ',')]
    pub stages: Vec<Stage>,
    /// Minimum duration of a stall [default: 1ms]
    #[arg(short, long, help_heading = "What", value_parser = values::threshold)]
    pub threshold: Option<Duration>,
    /// Minimum duration of a tcp_collapse call whose socket is reported [default: 500us]
    #[arg(long, value_name = "DURATION", help_heading = "What", value_parser = values::threshold)]
    pub collapse_threshold: Option<Duration>,
    /// Stop after this time [default: at Ctrl-C]
    #[arg(short, long, help_heading = "How long", value_parser = values::duration,
          conflicts_with = "command")]
    pub duration: Option<Duration>,
    /// Reporting interval [default: 1s]
    #[arg(long, help_heading = "How long", value_parser = values::interval)]
    pub interval: Option<Duration>,
    /// Limit the programs to this share of any CPU, such as 1%: above it, the most expensive
    /// stage is disabled, and the output says so. When no stage is left, tracing ends, or waits
    /// for the end of COMMAND
    #[arg(long, value_name = "SHARE", help_heading = "How long", value_parser = values::share)]
    pub max_overhead: Option<f64>,
    /// Trace while this command runs, and pass on its exit status
    #[arg(last = true, value_name = "COMMAND", help_heading = "How long")]
    pub command: Vec<OsString>,
    /// Write a recording: an HdrHistogram interval log. With -, to stdout, where a pipe takes it
    #[arg(short, long, value_name = "FILE.hlog", help_heading = "Output",
          value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Permissions of the recording, such as 644
    #[arg(long, value_name = "MODE", help_heading = "Output", value_parser = values::mode,
          default_value = values::PRIVATE, requires = "output")]
    pub mode: u32,
    /// Output format
    #[arg(short, long, help_heading = "Output", value_enum, default_value = "table")]
    pub format: Format,
    /// How to probe: auto, tracepoint, fentry or kprobe
    #[arg(short, long, value_name = "METHOD", help_heading = "Advanced",
          value_parser = values::choice, default_value = "auto")]
    pub probes: ProbeChoice,
    /// How events get into histograms
    #[arg(long, help_heading = "Advanced", value_enum, default_value = "maps")]
    pub transport: TransportArg,
    /// Capacity of the ring buffer of events, with --transport ring or both
    #[arg(long, value_name = "N", help_heading = "Advanced", default_value_t = DEFAULT_RING_EVENTS,
          value_parser = clap::value_parser!(u32).range(128..=1 << 24))]
    pub ring_events: u32,
    /// Stack samples of stalls in progress, per second and CPU; 0: none [default: 997]
    #[arg(long, value_name = "HZ", help_heading = "Advanced",
          value_parser = clap::value_parser!(u64).range(..=20_000))]
    pub sample_hz: Option<u64>,
    /// What the clock of the stack samples counts [default: time]
    #[arg(long, value_name = "CLOCK", help_heading = "Advanced", value_enum)]
    pub sample_clock: Option<SampleClockArg>,
    /// When a CPU has that clock [default: stalled]
    #[arg(long, value_name = "WHEN", help_heading = "Advanced", value_enum)]
    pub sample_when: Option<SampleWhenArg>,
    /// Maximum number of stalls reported per second and CPU; the rest is counted
    #[arg(long, value_name = "N", help_heading = "Advanced",
          default_value_t = DEFAULT_RECORDS_PER_SECOND)]
    pub max_stalls: u64,
    /// Histogram rows for queues and IRQs; what exceeds them shares a row per CPU
    /// [default: 2x detected, at most 1/256 of RAM]
    #[arg(long, value_name = "N", help_heading = "Advanced",
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub slots: Option<u32>,
    /// How to get along with a daemon.
    #[command(flatten)]
    pub daemon: DaemonArguments,
}

impl Arguments {
    /// The stages to time: the requested ones, or by default all but the optional one.
    pub fn stages(&self) -> Vec<Stage> {
        if self.stages.is_empty() {
            return default_stages();
        }
        Stage::ALL.into_iter().filter(|stage| self.stages.contains(stage)).collect()
    }

    /// Whether an option was given that has a default and that a daemon has, too.
    pub fn gives(&self, option: &str) -> bool {
        match option {
            "--threshold" => self.threshold.is_some(),
            "--collapse-threshold" => self.collapse_threshold.is_some(),
            "--interval" => self.interval.is_some(),
            "--sample-hz" => self.sample_hz.is_some(),
            "--sample-clock" => self.sample_clock.is_some(),
            "--sample-when" => self.sample_when.is_some(),
            _ => true,
        }
    }

    /// The configuration of the measurement. `verbose`: log the warnings of the kernel side.
    pub fn config(&self, verbose: bool) -> MeasureConfig {
        let default = MeasureConfig::new();
        let tracer = Config::new();
        let ns = |time: Duration| time.as_nanos() as u64;
        MeasureConfig {
            tracer: Config {
                stages: self.stages(),
                by_name: !self.stages.is_empty(),
                choice: self.probes,
                threshold_ns: self.threshold.map_or(tracer.threshold_ns, ns),
                transport: self.transport.into(),
                ring_events: self.ring_events,
                slots: self.slots,
                log: verbose,
                sample_hz: self.sample_hz.unwrap_or(tracer.sample_hz),
                sample_clock: self.sample_clock.map_or(tracer.sample_clock, Into::into),
                sample_when: self.sample_when.map_or(SampleWhen::Stalled, Into::into),
                collapse_threshold_ns: self
                    .collapse_threshold
                    .map_or(tracer.collapse_threshold_ns, ns),
                records_per_second: self.max_stalls,
                ..tracer
            },
            ifaces: self.iface.clone(),
            interval: self.interval.unwrap_or(default.interval),
            max_overhead: self.max_overhead,
            ..default
        }
    }

    /// Checks that every interface exists.
    ///
    /// # Errors
    ///
    /// When one does not exist; lists those that do.
    pub fn check_interfaces(&self) -> Result<(), Failure> {
        values::check_interfaces(&self.iface)
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::written_defaults::written_defaults;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn the_help_tells_the_defaults() {
        // In words, not as a value.
        let in_words = ["--iface=", "--stages=", "--duration=", "--slots="];
        let config = |words: &[&str]| {
            let parsed = Alone::try_parse_from([&["trace"], words].concat()).unwrap();
            format!("{:?}", parsed.arguments.config(false))
        };
        let written = written_defaults(&Alone::command());
        let (words, values): (Vec<_>, Vec<_>) =
            written.iter().partition(|option| in_words.iter().any(|word| option.starts_with(word)));
        assert_eq!(words.len(), in_words.len(), "{words:?}");
        assert!(values.len() > 4, "{values:?}");
        for option in values {
            assert_eq!(config(&[option]), config(&[]), "{option}");
        }
    }
}
