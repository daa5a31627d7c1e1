//! `cargo xtask bench`: measures the cost of tracing, next to other tools and no-op programs.
//!
//! Owns the order of the benchmarks and their common setup. Figures are ratios of adjacent slices,
//! because machines are noisy. Everything created here ends with this process: the load's
//! namespaces, the tracers, the statistics, the mounts.

use std::{
    env,
    fs::File,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{build_ebpf, process, setup::apt};

mod args;
mod benchmarks;
mod built;
mod figures;
mod goals;
mod guest;
mod latencies;
mod load;
mod machine;
mod mounts;
mod plan;
mod programs;
mod results;
mod rounds;
mod softirqs;
mod tools;
mod tracer;
mod views;

pub(crate) use args::Args;
use args::Benchmark;
use built::Built;
use plan::Plan;
use results::Results;
use tools::tool::Tool;
use views::Report;

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let built = if args.prebuilt { Built::find()? } else { Built::build()? };
    if !args.prebuilt {
        install_baselines();
        if args.rezolus {
            tools::rezolus::build()?;
        }
    }
    if args.vm.is_none() && !process::is_root() {
        return become_root();
    }
    // Opened before measuring, so that path errors show first.
    let json = args
        .json
        .as_ref()
        .map(|path| File::create(path).with_context(|| format!("cannot write {}", path.display())));
    let json = json.transpose()?;
    if let Some(kernel) = &args.vm {
        return guest::run(kernel, args, &built, json);
    }
    mounts::make_private()?;

    let machine = machine::Machine::detect();
    let started = Instant::now();
    let results = measure(args, &built);
    process::step(&format!("measured for {:.0} s", started.elapsed().as_secs_f64()));
    let report =
        Report { machine: &machine, results: &results, judged: !args.quick && !args.methods };
    print!("{}", report.table());
    if let Some(json) = json {
        serde_json::to_writer(json, &report.json()).context("cannot write the JSON")?;
    }
    let failed = results.failed_checks().next().is_some();
    let missed = args.check && report.misses_a_goal();
    Ok(if failed || missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Builds and installs everything, then returns the command that runs each benchmark once. Tests
/// the benchmark itself, and compares latency-user's counts with other tracers.
pub(crate) fn trial() -> Result<Command> {
    Built::build()?;
    install_baselines();
    let program = env::current_exe().context("cannot find the path of this program")?;
    let mut command = process::as_root(program)?;
    command.args(["bench", "--quick", "--prebuilt"]);
    Ok(command)
}

/// Runs the benchmarks that `args` select. One that fails becomes a failed check; the next one
/// still runs.
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
    let single = &benchmarks::SINGLE;
    let all = [
        Benchmark::PerEvent,
        Benchmark::Rate,
        Benchmark::Batches,
        Benchmark::Tail,
        Benchmark::User,
        Benchmark::Serve,
        Benchmark::Scale,
        Benchmark::Growth,
        Benchmark::Files,
    ];
    let is_selected = |benchmark: &Benchmark| args.only.is_empty() || args.only.contains(benchmark);
    for benchmark in all.into_iter().filter(is_selected) {
        let measured = match benchmark {
            Benchmark::PerEvent => {
                let tools = kernel_side(args, built, tools::per_event);
                benchmarks::per_event::run(built, &plan, single, &tools, &mut results)
            }
            Benchmark::Rate => {
                let tools = kernel_side(args, built, tools::rate);
                benchmarks::rate::run(built, &plan, single, &tools, &mut results)
            }
            Benchmark::Batches => {
                let (batches, tools) = (&benchmarks::BATCHES, tools::batches(built));
                benchmarks::per_event::run(built, &plan, batches, &tools, &mut results).and_then(
                    |()| benchmarks::rate::run(built, &plan, batches, &tools, &mut results),
                )
            }
            Benchmark::Tail => {
                benchmarks::tail::run(built, &plan, &tools::tail(built), &mut results)
            }
            Benchmark::User => benchmarks::single_run::run(built, &plan, &mut results)
                .and_then(|()| benchmarks::rows::run(built, &plan, &mut results)),
            Benchmark::Serve => benchmarks::serve::run(built, &plan, &mut results),
            Benchmark::Scale => benchmarks::scale::run(built, &plan, &mut results),
            Benchmark::Growth => benchmarks::growth::run(built, &plan, &mut results),
            Benchmark::Files => benchmarks::files::run(built, &plan, &mut results),
        };
        if let Err(error) = measured {
            let error = format!("{error:#}");
            results.check(format!("{benchmark:?} was measured"), false, || error);
        }
    }
    results
}

/// The tools whose cost in the kernel is measured: `usual` ones, unless `args` ask for others.
fn kernel_side(args: &Args, built: &Built, usual: fn(&Built) -> Vec<Tool>) -> Vec<Tool> {
    let mut tools = if args.methods { tools::methods(built) } else { usual(built) };
    if args.rezolus {
        tools.push(tools::rezolus::tool());
    }
    tools
}

/// Installs the packages of the baselines. A tool that cannot be installed becomes a row with the
/// reason.
fn install_baselines() {
    for (program, package) in tools::PACKAGES {
        if build_ebpf::find_program(program).is_none()
            && let Err(error) = apt::install(&[package])
        {
            process::step(&format!("without {package}: {error:#}"));
        }
    }
}

/// Replaces this process with itself as root, using the programs built so far.
fn become_root() -> Result<ExitCode> {
    let program = env::current_exe().context("cannot find the path of this program")?;
    let mut command = process::as_root(program)?;
    command.args(env::args_os().skip(1)).arg("--prebuilt");
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{}`", process::line(&command)))
}
