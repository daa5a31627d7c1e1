//! `cargo xtask`: what this workspace needs beyond `cargo build`, one module a command.
//!
//! Owns the command line only. Each command's work and its arguments live in its own module.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool reports its progress where the developer looks"
)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod build_ebpf;
mod ci;
mod demo;
mod layers;
mod licences;
mod process;
mod run;
mod setup;
mod test;
mod vm;
mod workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Tasks of this workspace")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building, the demo or the tests need and this machine lacks
    Setup(setup::Args),
    /// Compile the eBPF programs alone
    BuildEbpf,
    /// Show the tcp_collapse case in a private network namespace, and what mends it
    Demo,
    /// Build latency-user and run it as root
    Run(run::Args),
    /// Run every test, here and in virtual machines
    Test(test::Args),
    /// Measure what tracing costs, beside rivals and beside the floor
    Bench(bench::Args),
    /// Boot a Debian kernel under QEMU and run a command there
    Vm(vm::Args),
    /// Check that imports in latency-user go one way only
    Layers,
    /// Check that every dependency has a licence that deny.toml allows
    Licences,
    /// Everything that must hold before a change goes in
    Ci(ci::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup(args) => setup::main(&args),
        Command::BuildEbpf => workspace::build_ebpf().map(|_| ExitCode::SUCCESS),
        Command::Demo => demo::main(),
        Command::Run(args) => run::main(&args),
        Command::Test(args) => test::main(&args),
        Command::Bench(args) => bench::main(&args),
        Command::Vm(args) => vm::main(args),
        Command::Layers => layers::main(),
        Command::Licences => licences::main(),
        Command::Ci(args) => ci::main(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
