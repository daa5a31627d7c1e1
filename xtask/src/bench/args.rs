//! Command-line arguments of `cargo xtask bench`.

use std::path::PathBuf;

#[derive(clap::Args)]
#[group(id = "bench")]
pub(crate) struct Args {
    /// Run everything once and briefly, to check that it works and that latency-user counts every
    /// event
    #[arg(long)]
    pub(super) quick: bool,
    /// Run only these benchmarks
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) only: Vec<Benchmark>,
    /// Rounds of slices
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) rounds: u16,
    /// Length of a slice in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub(super) slice: u64,
    /// Also write all results to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Exit with status 1 when a goal is missed
    #[arg(long)]
    pub(super) check: bool,
    /// Measure in a virtual machine, such as debian-6.12; latency-user also by fentry and kprobes
    #[arg(long, value_name = "KERNEL")]
    pub(super) vm: Option<String>,
    /// Build Rezolus, which takes long, and measure it beside the other tools. It needs kprobes:
    /// where the kernel of this machine has none, use it with --vm
    #[arg(long)]
    pub(super) rezolus: bool,
    /// Compare probe methods and judge no goal
    #[arg(long, hide = true)]
    pub(super) methods: bool,
    /// Use the binaries of an earlier run
    #[arg(long, hide = true)]
    pub(super) prebuilt: bool,
}

/// The benchmarks, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Benchmark {
    /// Run time of the programs in the kernel
    PerEvent,
    /// Packet rate with a tracer
    Rate,
    /// Both with 64 packets in each poll
    Batches,
    /// Latency added
    Tail,
    /// CPU time, memory and start-up of latency-user itself
    User,
    /// CPU time and memory of the daemon
    Serve,
    /// CPU time and losses as events, queues and stalls grow
    Scale,
    /// Cost of a cycle as CPUs, queues and stalls grow
    Growth,
    /// Recordings, compared with other readers of the format
    Files,
}
