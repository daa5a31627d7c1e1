//! `trace`: times a running kernel, shows intervals live, and a summary at the end.

mod arguments;
mod screen;

use std::io::Write;

use anyhow::{Context, Result};
use latency_common::stage::Stage;

pub use self::arguments::Arguments;
use self::screen::Screen;
use crate::{
    cli::{Console, child, signals::Signals, stdout::Output, values::Format},
    kernel::{
        confine::Task, privileges, probes::bpf_stats::BpfStats, single_instance::SingleInstance,
    },
    measure::{
        self, Measurement,
        pacing::{Ends, Stop},
        recording::RecordingSink,
        sink::Sink,
    },
    model::{exit::Exit, failure::Failure, note::Note},
    views::Style,
};

/// Runs the command.
///
/// # Errors
///
/// Errors in the arguments, the privileges, the kernel or the output are found before the first
/// program is attached.
pub fn run(args: &Arguments, verbose: bool, console: Console) -> Result<Exit> {
    args.check_interfaces()?;
    child::find_program(&args.command)?;
    privileges::check()?;
    if args.max_overhead.is_some() {
        BpfStats::switch_on().map_err(|refused| {
            Failure::unsupported(format!("--max-overhead: {refused}"))
                .hint("run it as root, or without --max-overhead")
        })?;
    }
    let _instance = SingleInstance::claim()?;
    let output = args.output.as_deref();
    let recording =
        output.map(|path| RecordingSink::create(path, args.mode, &args.iface)).transpose()?;
    measure::block_on(trace(args, verbose, recording, console))
}

async fn trace(
    args: &Arguments,
    verbose: bool,
    mut recording: Option<RecordingSink>,
    mut console: Console,
) -> Result<Exit> {
    let mut signals = Signals::new()?;
    let mut measurement = Measurement::start(&args.config(verbose))?;
    let mut child = child::spawn(&args.command)?;
    let mut reader = console.unblock();
    super::confine(Task::Trace { command: child.is_some() });
    let mut err = console.err;
    let mut notify = |stage: Option<Stage>, note: &Note| {
        let stage = stage.map(|stage| format!("{}: ", stage.name())).unwrap_or_default();
        let _ = writeln!(err, "warning: {stage}{note}");
    };
    let style = Style { colour: console.colour, width: Style::MAX_WIDTH };
    let output = Output::new(console.out, console.rows);
    let mut screen = Screen::new(output, style, args.format, reader.clone());
    let mut sinks: Vec<&mut dyn Sink> = Vec::new();
    sinks.extend(recording.as_mut().map(|recording| recording as &mut dyn Sink));
    sinks.push(&mut screen);
    let outlast_stages = child.is_some();
    let signal = async {
        tokio::select! {
            biased;
            () = signals.received() => Ok(Stop::Signal),
            status = child::exited(&mut child) => {
                status.context("wait for the command")?;
                Ok(Stop::Command)
            }
        }
    };
    let ends = Ends { duration: args.duration, signal, outlast_stages };
    let stopped = measurement.follow(ends, &mut sinks, &mut notify).await;
    let outcome = measurement.finish(&mut sinks, &mut notify)?;
    log::info!("stopped: {:?}", stopped?);
    let balanced = outcome.summary.ledger.balanced;
    if !balanced && args.format == Format::Json {
        notify(None, &Note::LedgerUnbalanced);
    }
    let is_read = reader.drain();
    if !is_read {
        notify(None, &Note::OutputNotRead { lines: reader.dropped_lines() });
    }
    let is_complete =
        is_read && balanced && !recording.is_some_and(|recording| recording.has_failed());
    let child_status = match &mut child {
        Some(child) => match child.try_wait()? {
            Some(status) => Some(child::exit_status(status)),
            None => child::terminate(child).await.map(child::exit_status),
        },
        None => None,
    };
    Ok(match (is_complete, child_status) {
        (false, _) => Exit::Failed,
        (true, Some(status)) => Exit::Command(status),
        (true, None) => Exit::Ok,
    })
}
