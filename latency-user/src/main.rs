//! The program: reads the command line, runs a command, reports errors.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser};
use clap_complete::CompleteEnv;
use latency_user::{
    cli::{
        Console,
        masked::{Allowed, Masked},
        unblocked::Unblocked,
    },
    commands::Cli,
    model::{exit::Exit, failure::Failure},
};

fn main() -> ExitCode {
    // Answers the shell and exits if this is a request for completion.
    CompleteEnv::with_factory(Cli::command).complete();
    let cli = Cli::parse();
    let level = match cli.verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    let mut stderr = Unblocked::new(io::stderr());
    let messages = Masked::new(stderr.clone(), Allowed::Nothing);
    // RUST_LOG, if set, overrides the level.
    env_logger::Builder::new()
        .filter_level(level)
        .parse_default_env()
        .target(env_logger::Target::Pipe(Box::new(messages)))
        .init();
    let is_terminal = io::stdout().is_terminal();
    let rows = terminal_size::terminal_size_of(io::stdout()).map_or(0, |(_, height)| height.0);
    let colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let stdout_may = if is_terminal { Allowed::Sequences } else { Allowed::Nothing };
    let stderr_may = match io::stderr().is_terminal() {
        true => Allowed::CarriageReturns,
        false => Allowed::Nothing,
    };
    let console = Console {
        out: Box::new(Masked::new(io::stdout(), stdout_may)),
        err: Box::new(Masked::new(stderr.clone(), stderr_may)),
        err_is_terminal: io::stderr().is_terminal(),
        rows: rows.into(),
        colour,
    };
    let exit = match cli.run(console) {
        Ok(exit) => exit.into(),
        Err(error) => fail(&error, stderr.clone()),
    };
    stderr.drain();
    exit
}

/// Prints the error and a hint on what to do.
fn fail(error: &anyhow::Error, stderr: Unblocked) -> ExitCode {
    let mut stderr = Masked::new(stderr, Allowed::Nothing);
    // Names in it may contain ends of lines.
    let _ = writeln!(stderr, "error: {}", format!("{error:#}").replace('\n', "?"));
    let failure = error.downcast_ref::<Failure>();
    if let Some(hint) = failure.and_then(|failure| failure.hint.as_ref()) {
        let _ = writeln!(stderr, "hint: {hint}");
    }
    failure.map_or(Exit::Failed, |failure| failure.exit).into()
}
