//! The program: reads the command line, runs a command, reports errors.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser};
use clap_complete::CompleteEnv;
use latency_user::{
    cli::{Console, masked::Masked},
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
    // RUST_LOG, if set, overrides the level.
    env_logger::Builder::new()
        .filter_level(level)
        .parse_default_env()
        .target(env_logger::Target::Pipe(Box::new(Masked::new(io::stderr(), false))))
        .init();
    let is_terminal = io::stdout().is_terminal();
    let rows = terminal_size::terminal_size_of(io::stdout()).map_or(0, |(_, height)| height.0);
    let colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let console = Console {
        out: Box::new(Masked::new(io::stdout(), is_terminal)),
        err: Box::new(Masked::new(io::stderr(), false)),
        err_is_terminal: io::stderr().is_terminal(),
        rows: rows.into(),
        colour,
    };
    match cli.run(console) {
        Ok(exit) => exit.into(),
        Err(error) => fail(&error),
    }
}

/// Prints the error and a hint on what to do.
fn fail(error: &anyhow::Error) -> ExitCode {
    let mut stderr = Masked::new(io::stderr(), false);
    let _ = writeln!(stderr, "error: {error:#}");
    let failure = error.downcast_ref::<Failure>();
    if let Some(hint) = failure.and_then(|failure| failure.hint.as_ref()) {
        let _ = writeln!(stderr, "hint: {hint}");
    }
    failure.map_or(Exit::Failed, |failure| failure.exit).into()
}
