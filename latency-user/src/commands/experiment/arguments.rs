//! Arguments of `experiment` and of its watchdog.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum, ValueHint};

use crate::{
    cli::values::{self, Format},
    experiment::{abort::Limit, journal},
};

/// What to change and how to measure it.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Exit status: 4 when it became worse, 0 otherwise. Whatever happens, the original
value is put back; --keep-if improved keeps a change that helped.

Examples:
  Does a smaller receive buffer help?
      latency-user experiment --iface eth0 --window 30s --rounds 3 \\
          --set sysctl:net.ipv4.tcp_rmem='4096 131072 4194304'
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
    /// What to change; several are one change. TUNING:TARGET=VALUE, where TUNING is sysctl, irq,
    /// rps, xps, napi_defer_hard_irqs, gro_flush_timeout, threaded, offload, ring, channels,
    /// coalesce or scheduler: --list describes them.
    #[arg(long, value_name = "KEY=VALUE", required_unless_present_any = ["list", "undo"])]
    pub set: Vec<String>,
    /// Guard the drops, throughput and link of this interface; repeatable; none: of all.
    #[arg(short, long, value_name = "IF")]
    pub iface: Vec<String>,
    /// The network namespace to change: a name of `ip netns` or a process.
    #[arg(long, value_name = "NAME|PID")]
    pub netns: Option<String>,
    /// How long each window is.
    #[arg(short, long, value_parser = window, default_value = "30s")]
    pub window: Duration,
    /// Windows with the change.
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Pause after each change; it must cover the time that a NIC is without link then.
    #[arg(long, value_parser = values::duration, default_value = "2s")]
    pub settle: Duration,
    /// Count durations at or above it as stalls.
    #[arg(short, long, value_parser = values::threshold,
          default_value = values::THRESHOLD.as_str())]
    pub threshold: Duration,
    /// Keep the change if this is the conclusion, and a further window confirms it.
    #[arg(long, value_enum)]
    pub keep_if: Option<KeepIf>,
    /// End a window with the change early on this, such as p99.9>5ms of net_rx; without it, on ten
    /// times the stalls. A lost link ends it always.
    #[arg(long, value_name = "RULE")]
    pub abort_if: Option<Limit>,
    /// Put recordings and the report into this folder; without it, one named after the time.
    #[arg(short, long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub output: Option<PathBuf>,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: Format,
    /// Say each read and write, and do none of the writes.
    #[arg(long)]
    pub dry_run: bool,
    /// Describe what can be changed, with the present values.
    #[arg(long, conflicts_with_all = ["set", "undo"])]
    pub list: bool,
    /// Put back what an experiment that did not end may have left changed.
    #[arg(long, conflicts_with = "set")]
    pub undo: bool,
    /// Where it is written down what must be put back.
    #[arg(long, value_name = "FOLDER", default_value = journal::FOLDER,
          value_hint = ValueHint::DirPath)]
    pub state: PathBuf,
}

/// When a change is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeepIf {
    /// Stalls became rarer, and nothing else suffered.
    Improved,
}

/// What a watchdog is told.
#[derive(Args, Clone, Debug)]
pub struct WatchArguments {
    /// The folder of journals.
    pub folder: PathBuf,
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
