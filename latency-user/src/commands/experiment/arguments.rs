//! Arguments of `experiment` and of its watchdog.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum, ValueHint};

use crate::{
    cli::values::{self, Format},
    commands::tracer::DaemonArguments,
    experiment::{abort::Limit, journal},
};

/// What to change and how to measure it.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Windows with the change and without it follow in pairs, in random order. It ends
early when the answer is clear. The original value is put back whatever happens;
--keep-if improved keeps a change that helped. Exit status 4: it became worse, or
a window with the change had to end early.

Examples:
  Does a smaller receive buffer help? Measure for at most ten minutes:
      latency-user experiment --iface eth0 --time 10m \\
          --set sysctl:net.ipv4.tcp_rmem='4096 131072 4194304'
  How long would it take to show a halving of the stalls?
      latency-user experiment --plan --iface eth0'
  The same for a container, and keep it if so:
      latency-user experiment --netns web --keep-if improved \\
          --set sysctl:net.ipv4.tcp_rmem='4096 131072 4194304'
  Do more descriptors help, or IRQs on CPUs of their own?
      latency-user experiment --iface eth0 --set ring:eth0/rx=4096
      latency-user experiment --iface eth0 --set irq:eth0=spread
  What can be changed, and what it is now:
      latency-user experiment --list --iface eth0
  After a power loss or kill -9:
      latency-user experiment --undo")]
pub struct Arguments {
    /// What to change; several --set are one change. TUNABLE is sysctl, irq, rps, xps,
    /// napi_defer_hard_irqs, gro_flush_timeout, threaded, offload, ring, channels, coalesce or
    /// scheduler: --list describes them
    #[arg(long, value_name = "TUNABLE:TARGET=VALUE", help_heading = "What",
          required_unless_present_any = ["list", "undo", "plan"])]
    pub set: Vec<String>,
    /// Guard drops, throughput and link of IF (repeatable) [default: all]
    #[arg(short, long, value_name = "IF", help_heading = "What")]
    pub iface: Vec<String>,
    /// Network namespace to change: a name of `ip netns`, or a process
    #[arg(long, value_name = "NAME|PID", help_heading = "What")]
    pub netns: Option<String>,
    /// Minimum duration of a stall [default: 1ms, or as the daemon has it that traces here]
    #[arg(short, long, help_heading = "What", value_parser = values::threshold)]
    pub threshold: Option<Duration>,
    /// Keep the change if this is the conclusion
    #[arg(long, value_enum, help_heading = "What")]
    pub keep_if: Option<KeepIf>,
    /// Time for all windows: as many pairs as fit, at least eight
    #[arg(long, help_heading = "How long", value_parser = values::duration,
          default_value = "5m", conflicts_with = "rounds")]
    pub time: Duration,
    /// Length of a window
    #[arg(short, long, help_heading = "How long", value_parser = window, default_value = "10s")]
    pub window: Duration,
    /// Number of pairs of windows, at most [default: as many as fit --time]
    #[arg(short, long, help_heading = "How long",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: Option<u32>,
    /// Seed of the order of windows and of the pauses between them [default: random]
    #[arg(long, value_name = "NUMBER", help_heading = "How long")]
    pub seed: Option<u64>,
    /// Pause after each change; must cover the time that a NIC has no link then
    #[arg(long, help_heading = "How long", value_parser = values::duration, default_value = "2s")]
    pub settle: Duration,
    /// End a window with the change early on this, such as p99.9>5ms of net_rx
    /// [default: ten times the stalls of the worst stretch of equal length without the change]. A
    /// lost link always ends it
    #[arg(long, value_name = "RULE", help_heading = "How long")]
    pub abort_if: Option<Limit>,
    /// Limit the programs to this share of any CPU, such as 1%: above it, the most expensive
    /// stage is disabled for the rest of the window
    #[arg(long, value_name = "SHARE", help_heading = "How long", value_parser = values::share)]
    pub max_overhead: Option<f64>,
    /// How to get along with a daemon.
    #[command(flatten)]
    pub daemon: DaemonArguments,
    /// Directory for recordings and the report [default: named after the time]
    #[arg(short, long, value_name = "DIR", help_heading = "Output",
          value_hint = ValueHint::DirPath)]
    pub output: Option<PathBuf>,
    /// Permissions of recordings and report, such as 644
    #[arg(long, value_name = "MODE", help_heading = "Output", value_parser = values::mode,
          default_value = values::PRIVATE)]
    pub mode: u32,
    /// Output format
    #[arg(short, long, help_heading = "Output", value_enum, default_value = "table")]
    pub format: Format,
    /// Print the planned reads and writes without writing
    #[arg(long, help_heading = "Instead of an experiment")]
    pub dry_run: bool,
    /// Measure windows without any change, and say how many would show a halving
    #[arg(long, help_heading = "Instead of an experiment",
          conflicts_with_all = ["set", "list", "undo", "dry_run", "keep_if", "rounds", "seed"])]
    pub plan: bool,
    /// List what can be changed, with the present values
    #[arg(long, help_heading = "Instead of an experiment", conflicts_with_all = ["set", "undo"])]
    pub list: bool,
    /// Put back what an interrupted experiment may have left changed
    #[arg(long, help_heading = "Instead of an experiment", conflicts_with = "set")]
    pub undo: bool,
    /// Directory of undo journals
    #[arg(long, value_name = "DIR", help_heading = "Advanced",
          default_value = journal::DIRECTORY, value_hint = ValueHint::DirPath)]
    pub state: PathBuf,
}

/// When a change is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeepIf {
    /// Stalls became rarer, and nothing else suffered.
    Improved,
}

/// Arguments of the watchdog.
#[derive(Args, Clone, Debug)]
pub struct WatchArguments {
    /// The directory of journals.
    pub directory: PathBuf,
    /// The journal in it.
    pub journal: String,
}

/// Reads the length of a window: long enough for ten intervals.
fn window(text: &str) -> Result<Duration, String> {
    let window = values::duration(text)?;
    if window < Duration::from_secs(1) {
        return Err("must be at least 1s".into());
    }
    Ok(window)
}
