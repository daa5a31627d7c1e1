//! Arguments of `trace`.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, ValueHint};
use clap_complete::ArgValueCandidates;
use latency_common::stage::Stage;

use crate::{
    cli::values::{self, Format, TransportArg},
    collect::config::{
        DEFAULT_RECORDS_PER_SECOND, DEFAULT_RING_EVENTS, DEFAULT_SAMPLE_HZ, default_stages,
    },
    kernel::probes::selection::Choice,
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
  What else ran in softirq context:
      latency-user trace --stages rx_wait,net_rx,softirq --duration 10s")]
pub struct Arguments {
    /// Show the queues and IRQs of this interface; repeatable; none: of all.
    #[arg(short, long, value_name = "IF", add = ArgValueCandidates::new(values::interfaces))]
    pub iface: Vec<String>,
    /// Stop after this long; without it, at Ctrl-C.
    #[arg(short, long, value_parser = values::duration, conflicts_with = "command")]
    pub duration: Option<Duration>,
    /// Take a snapshot this often.
    #[arg(long, value_parser = values::interval, default_value = "1s")]
    pub interval: Duration,
    /// Count intervals at or above it as stalls.
    #[arg(short, long, value_parser = values::threshold, default_value = values::THRESHOLD.as_str())]
    pub threshold: Duration,
    /// Time only these stages: irq, rx_wait, net_rx, napi_poll, tcp_collapse, softirq.
    /// Without it: all but softirq, as far as the kernel can.
    #[arg(short, long, value_name = "STAGE,..", value_parser = values::stage, value_delimiter = ',')]
    pub stages: Vec<Stage>,
    /// How to probe: auto, tracepoint, fentry or kprobe.
    #[arg(short, long, value_name = "METHOD", value_parser = values::choice, default_value = "auto")]
    pub probes: Choice,
    /// How events get into histograms.
    #[arg(long, value_enum, default_value = "maps")]
    pub transport: TransportArg,
    /// Events that the ring buffer has room for, with --transport ring or both.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_RING_EVENTS,
          value_parser = clap::value_parser!(u32).range(128..=1 << 24))]
    pub ring_events: u32,
    /// Take stacks of stalls under way this often in a second, on each CPU; 0: never.
    #[arg(long, value_name = "HZ", default_value_t = DEFAULT_SAMPLE_HZ,
          value_parser = clap::value_parser!(u64).range(..=20_000))]
    pub sample_hz: u64,
    /// Report the sockets of tcp_collapse calls at or above it.
    #[arg(long, value_name = "DURATION", value_parser = values::threshold,
          default_value = values::COLLAPSE_THRESHOLD.as_str())]
    pub collapse_threshold: Duration,
    /// Report at most so many stalls in a second on each CPU; the rest is counted.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_RECORDS_PER_SECOND)]
    pub max_stalls: u64,
    /// Let the programs take at most this share of any CPU, such as 1%: when they take more, the
    /// stage that costs most is given up, and the output says so. When none is left, tracing
    /// ends, or waits for the end of COMMAND.
    #[arg(long, value_name = "SHARE", value_parser = values::share)]
    pub max_overhead: Option<f64>,
    /// Have room for so many queues and IRQs; the rest share a row on each CPU. Without it:
    /// twice as many as the machine has, in a 256th of its memory.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub slots: Option<u32>,
    /// Write a recording: an HdrHistogram interval log.
    #[arg(short, long, value_name = "FILE.hlog", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: Format,
    /// Trace while this command runs, and pass on its exit status.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

impl Arguments {
    /// The stages to time: those asked for, or all but the optional one.
    pub fn stages(&self) -> Vec<Stage> {
        if self.stages.is_empty() {
            return default_stages();
        }
        Stage::ALL.into_iter().filter(|stage| self.stages.contains(stage)).collect()
    }
}
