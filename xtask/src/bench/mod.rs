//! `cargo xtask bench`: what tracing costs, beside rivals and beside the floor, in one run.
//!
//! Owns the order of the parts and what they share. Every figure is a ratio of slices that lie
//! next to one another, because machines are noisy. Everything that is made here ends with this
//! process: the load's namespaces, the tracers, the statistics, the mounts.

use std::{
    env,
    fs::File,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    build_ebpf, process,
    setup::apt,
    workspace::{self, TESTS_PACKAGE},
};

mod contenders;
mod figures;
mod goals;
mod guest;
mod latencies;
mod load;
mod machine;
mod mounts;
mod parts;
mod programs;
mod results;
mod rounds;
mod softirqs;
mod tracer;
mod views;

use results::Results;
use views::Shown;

#[derive(clap::Args)]
#[group(id = "bench")]
pub(crate) struct Args {
    /// Run everything once and briefly, to see that it works and that ours counts all
    #[arg(long)]
    quick: bool,
    /// Measure only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Rounds of slices
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Milliseconds of a slice
    #[arg(long, value_name = "MS", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(10..=60_000))]
    slice: u64,
    /// Also write everything to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// End with status 1 when a goal is missed
    #[arg(long)]
    check: bool,
    /// Measure in a virtual machine, such as debian-6.12, ours also by fentry and by kprobes
    #[arg(long, value_name = "KERNEL")]
    vm: Option<String>,
    /// Compare methods of probing and judge no goal
    #[arg(long, hide = true)]
    methods: bool,
    /// Use what an earlier run has built
    #[arg(long, hide = true)]
    prebuilt: bool,
}

/// The parts, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Run time of the programs in the kernel
    PerEvent,
    /// Packet rate with a tracer
    Rate,
    /// Latency added
    Tail,
    /// CPU time, memory and start-up of latency-user itself
    User,
    /// Cost as events, queues and stalls grow
    Scale,
    /// Recordings, beside other readers of theirs
    Files,
}

/// Programs that the benchmark runs.
pub(crate) struct Built {
    latency_user: PathBuf,
    load: PathBuf,
    floor: PathBuf,
    rows: PathBuf,
    files: PathBuf,
    object: PathBuf,
    floor_object: PathBuf,
    injector: PathBuf,
}

/// How long is measured.
pub(crate) struct Plan {
    rounds: usize,
    slice: Duration,
    /// Everything once, and only to see that it works.
    quick: bool,
}

impl Built {
    fn build() -> Result<Self> {
        let objects = workspace::build_ebpf()?;
        let tests = |name| workspace::release_binary(TESTS_PACKAGE, name);
        Ok(Self {
            latency_user: workspace::release_binary("latency-user", "latency-user")?,
            load: tests("bench-load")?,
            floor: tests("bench-floor")?,
            rows: tests("bench-rows")?,
            files: tests("bench-files")?,
            object: objects.join("latency-ebpf"),
            floor_object: objects.join("bench-floor-ebpf"),
            injector: objects.join("stall-injector-ebpf"),
        })
    }

    /// Where [`Self::build`] puts them.
    fn find() -> Result<Self> {
        let release = workspace::root().join("target/release");
        let objects = build_ebpf::objects(&workspace::root());
        let built = Self {
            latency_user: release.join("latency-user"),
            load: release.join("bench-load"),
            floor: release.join("bench-floor"),
            rows: release.join("bench-rows"),
            files: release.join("bench-files"),
            object: objects.join("latency-ebpf"),
            floor_object: objects.join("bench-floor-ebpf"),
            injector: objects.join("stall-injector-ebpf"),
        };
        if let Some(missing) = built.files().into_iter().find(|file| !file.is_file()) {
            bail!("{} was not built", missing.display());
        }
        Ok(built)
    }

    fn files(&self) -> [&PathBuf; 8] {
        let Self { latency_user, load, floor, rows, files, object, floor_object, injector } = self;
        [latency_user, load, floor, rows, files, object, floor_object, injector]
    }
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let built = if args.prebuilt { Built::find()? } else { Built::build()? };
    if !args.prebuilt {
        install_rivals();
    }
    if args.vm.is_none() && !process::is_root() {
        return become_root();
    }
    // Opened before anything is measured.
    let json = args
        .json
        .as_ref()
        .map(|path| File::create(path).with_context(|| format!("cannot write {}", path.display())));
    let json = json.transpose()?;
    if let Some(kernel) = &args.vm {
        return guest::run(kernel, args, &built, json);
    }
    mounts::make_private()?;

    let machine = machine::Machine::look();
    let began = Instant::now();
    let results = measure(args, &built);
    process::step(&format!("measured for {:.0} s", began.elapsed().as_secs_f64()));
    let shown =
        Shown { machine: &machine, results: &results, judged: !args.quick && !args.methods };
    print!("{}", shown.table());
    if let Some(json) = json {
        serde_json::to_writer(json, &shown.json()).context("cannot write the JSON")?;
    }
    let failed = results.failed_checks().next().is_some();
    let missed = args.check && shown.misses_a_goal();
    Ok(if failed || missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The command that runs everything once, with what it needs built and installed: a test of the
/// benchmark, and of what latency-user counts beside other tracers.
pub(crate) fn trial() -> Result<Command> {
    Built::build()?;
    install_rivals();
    let program = env::current_exe().context("cannot tell where this program lies")?;
    let mut command = process::as_root(program)?;
    command.args(["bench", "--quick", "--prebuilt"]);
    Ok(command)
}

/// Measures what `args` ask for. A part that fails is a row, and the next one has its turn.
fn measure(args: &Args, built: &Built) -> Results {
    let plan = match args.quick {
        true => Plan { rounds: 1, slice: Duration::from_millis(200), quick: true },
        false => Plan {
            rounds: args.rounds.into(),
            slice: Duration::from_millis(args.slice),
            quick: false,
        },
    };
    let mut results = Results::default();
    let all = [Part::PerEvent, Part::Rate, Part::Tail, Part::User, Part::Scale, Part::Files];
    for part in all.into_iter().filter(|part| args.only.is_empty() || args.only.contains(part)) {
        let measured = match part {
            Part::PerEvent => {
                let contenders = match args.methods {
                    true => contenders::methods(built),
                    false => contenders::per_event(built),
                };
                parts::per_event::run(built, &plan, &contenders, &mut results)
            }
            Part::Rate => {
                let contenders = match args.methods {
                    true => contenders::methods(built),
                    false => contenders::rate(built),
                };
                parts::rate::run(built, &plan, &contenders, &mut results)
            }
            Part::Tail => parts::tail::run(built, &plan, &contenders::tail(built), &mut results),
            Part::User => parts::whole_run::run(built, &plan, &mut results)
                .and_then(|()| parts::rows::run(built, &plan, &mut results)),
            Part::Scale => parts::scale::run(built, &plan, &mut results),
            Part::Files => parts::files::run(built, &plan, &mut results),
        };
        if let Err(error) = measured {
            let error = format!("{error:#}");
            results.check(format!("{part:?} was measured"), false, || error);
        }
    }
    results
}

/// Brings the rivals; one that cannot be had will be a row that says so.
fn install_rivals() {
    for (program, package) in contenders::PACKAGES {
        if build_ebpf::find_program(program).is_none()
            && let Err(error) = apt::install(&[package])
        {
            process::step(&format!("without {package}: {error:#}"));
        }
    }
}

/// Starts anew as root, with what was built and installed.
fn become_root() -> Result<ExitCode> {
    let program = env::current_exe().context("cannot tell where this program lies")?;
    let mut command = process::as_root(program)?;
    command.args(env::args_os().skip(1)).arg("--prebuilt");
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{}`", process::line(&command)))
}
