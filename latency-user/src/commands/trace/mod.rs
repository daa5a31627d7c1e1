//! `trace`: times a running kernel, shows intervals live, and a summary at the end.

mod arguments;
mod screen;

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use latency_common::stage::Stage;

pub use self::arguments::Arguments;
use self::screen::Screen;
use crate::{
    cli::{Console, child, signals::Signals, stdout::Output, values::Format},
    commands::tracer::Tracer,
    kernel::{confine::Task, privileges, probes::bpf_stats::BpfStats},
    measure::{
        self, MeasureConfig, Measurement,
        pacing::{Ends, Stop},
        recording::RecordingSink,
        sink::Sink,
    },
    model::{exit::Exit, failure::Failure, note::Note},
    views::Style,
};

/// Standard output as the file of a recording.
const STDOUT: &str = "-";

/// Runs the command.
///
/// # Errors
///
/// Errors in the arguments, the privileges, the kernel or the output are found before the first
/// program is attached.
pub fn run(args: &Arguments, verbose: bool, mut console: Console) -> Result<Exit> {
    args.check_interfaces()?;
    child::find_program(&args.command)?;
    let config = args.config(verbose);
    let check = || {
        privileges::check()?;
        if args.max_overhead.is_some() {
            BpfStats::switch_on().map_err(|refused| {
                Failure::unsupported(format!("--max-overhead: {refused}"))
                    .hint("run it as root, or without --max-overhead")
            })?;
        }
        Ok(())
    };
    let tracer = Tracer::choose(
        &config,
        |option| args.gives(option),
        &args.daemon,
        check,
        &mut console.err,
    )?;
    let config = MeasureConfig { daemon: tracer.daemon(), ..config };
    let recording = match &args.output {
        Some(path) if path.as_os_str() == STDOUT => {
            if io::stdout().is_terminal() {
                let hint = "a pipe takes it: latency-user trace --output - | latency-user report -";
                let what = "a recording does not go to a terminal";
                return Err(Failure::usage(what).hint(hint).into());
            }
            None
        }
        Some(path) => Some(RecordingSink::create(path, args.mode, &args.iface)?),
        None => None,
    };
    measure::block_on(trace(args, &config, recording, console))
}

async fn trace(
    args: &Arguments,
    config: &MeasureConfig,
    mut recording: Option<RecordingSink>,
    mut console: Console,
) -> Result<Exit> {
    let mut signals = Signals::new()?;
    let mut measurement = Measurement::start(config)?;
    let mut child = child::spawn(&args.command)?;
    let mut reader = console.unblock();
    super::confine(Task::Trace { command: child.is_some() });
    let mut err = console.err;
    let mut notify = |stage: Option<Stage>, note: &Note| {
        let stage = stage.map(|stage| format!("{}: ", stage.name())).unwrap_or_default();
        let _ = writeln!(err, "warning: {stage}{note}");
    };
    let style = Style { colour: console.colour, width: Style::MAX_WIDTH };
    let mut screen = None;
    if args.output.as_ref().is_some_and(|path| path.as_os_str() == STDOUT) {
        let dropped = reader.clone();
        let dropped_lines = move || dropped.dropped_lines();
        recording = Some(RecordingSink::to_stream(console.out, &args.iface, dropped_lines));
    } else {
        let output = Output::new(console.out, console.rows);
        screen = Some(Screen::new(output, style, args.format, reader.clone()));
    }
    let mut sinks: Vec<&mut dyn Sink> = Vec::new();
    sinks.extend(recording.as_mut().map(|recording| recording as &mut dyn Sink));
    sinks.extend(screen.as_mut().map(|screen| screen as &mut dyn Sink));
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
    let ends = Ends { duration: args.duration, signal, early: None, outlast_stages };
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
