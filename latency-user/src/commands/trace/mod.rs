//! `trace`: times a running kernel, shows it as it goes, and sums it up.

mod arguments;
mod session;

use std::path::Path;

use anyhow::{Context, Result};
use tokio::runtime;

pub use self::arguments::Arguments;
use self::session::Session;
use crate::cli::Console;
use crate::cli::{child, signals::Signals};
use crate::{
    collect::{config::Config, tracer::Tracer},
    host::net::interfaces,
    kernel::{privileges, probes::bpf_stats::Statistics, single_instance::Instance},
    model::failure::Failure,
    recording::writer::Writer,
};

/// Runs the command and returns the exit status.
///
/// # Errors
///
/// Everything that is wrong with the arguments, the privileges, the kernel or the output is
/// found before the first program is attached.
pub fn run(args: &Arguments, verbose: bool, console: Console) -> Result<u8> {
    check_interfaces(&args.iface)?;
    child::find_program(&args.command)?;
    privileges::check()?;
    if args.max_overhead.is_some() {
        Statistics::switch_on().map_err(|refused| {
            Failure::missing(format!("--max-overhead: {refused}"))
                .hint("run it as root, or without --max-overhead")
        })?;
    }
    let _instance = Instance::claim()?;
    let recording = args.output.as_deref().map(Writer::create).transpose()?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    runtime.block_on(trace(args, verbose, recording, console))
}

fn check_interfaces(asked: &[String]) -> Result<(), Failure> {
    if asked.is_empty() {
        return Ok(());
    }
    let known = interfaces::list(Path::new("/"))
        .map_err(|error| Failure::new(format!("interfaces cannot be listed: {error:#}")))?;
    match asked.iter().find(|name| !known.iter().any(|one| one.name == **name)) {
        None => Ok(()),
        Some(unknown) => {
            let names: Vec<&str> = known.iter().map(|one| one.name.as_str()).collect();
            Err(Failure::new(format!("no interface {unknown:?} in this network namespace"))
                .hint(format!("there are: {}", names.join(", "))))
        }
    }
}

async fn trace(
    args: &Arguments,
    verbose: bool,
    recording: Option<Writer>,
    console: Console,
) -> Result<u8> {
    let mut signals = Signals::new()?;
    let threshold_ns = args.threshold.as_nanos() as u64;
    let config = Config {
        stages: args.stages(),
        by_name: !args.stages.is_empty(),
        choice: args.probes,
        threshold_ns,
        transport: args.transport.into(),
        ring_events: args.ring_events,
        slots: args.slots,
        log: verbose,
        sample_hz: args.sample_hz,
        collapse_threshold_ns: args.collapse_threshold.as_nanos() as u64,
        records_per_second: args.max_stalls,
        ..Config::new()
    };
    let tracer = Tracer::start(&config)?;
    let mut session = Session::new(args, tracer, recording, console)?;
    let mut child = child::spawn(&args.command)?;
    let ended = session.follow(args, &mut signals, &mut child).await;
    let status = session.finish()?;
    ended?;
    let child_status = match &mut child {
        Some(child) => match child.try_wait()? {
            Some(status) => Some(child::exit_status(status)),
            None => child::terminate(child).await.map(child::exit_status),
        },
        None => None,
    };
    Ok(match (status, child_status) {
        (0, Some(child)) => child,
        (status, _) => status,
    })
}
