//! `cargo xtask`: tasks of this workspace beyond `cargo build`, one module per command.
//!
//! Owns only the list of commands. Each module has the arguments and the work of its command.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool prints its progress to the terminal"
)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod architecture;
mod bench;
mod build;
#[path = "../../latency-user/build/ebpf.rs"]
mod build_ebpf;
mod ci;
mod demo;
mod fuzz;
mod kernels;
mod layers;
mod licences;
mod package;
mod picture;
mod process;
mod run;
mod setup;
mod test;
mod verdicts;
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
    /// Install what is missing for building, the demo or the tests
    Setup(setup::Args),
    /// Build latency-user as one static program, for this machine or another architecture
    Build(build::Args),
    /// Package latency-user: deb, rpm, an archive and a container image
    Package(package::Args),
    /// Compile only the eBPF programs
    BuildEbpf,
    /// Reproduce the tcp_collapse case in a private network namespace and test its fix
    Demo,
    /// Take the picture of the demo's page that README shows
    Picture,
    /// Build latency-user and run it as root
    Run(run::Args),
    /// Run all tests, on this machine and in virtual machines
    Test(test::Args),
    /// Measure the cost of tracing, next to other tools and no-op programs
    Bench(bench::Args),
    /// Simulate how often verdicts are wrong, and write the table of docs/verdicts.md
    Verdicts,
    /// Search for input that breaks the readers of recordings, types, hosts and journals
    Fuzz(fuzz::Args),
    /// Boot a Debian kernel under QEMU and run a command there
    Vm(vm::Args),
    /// Run doctor on all of Debian's kernels, and write the table of docs/kernels.md
    Kernels,
    /// Check the layers of latency-user, and that no files import one another in a circle
    Layers,
    /// Check the licences, sources and versions of dependencies with cargo-deny
    Licences,
    /// Run all checks that a change must pass
    Ci(ci::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup(args) => setup::main(&args),
        Command::Build(args) => build::main(&args),
        Command::Package(args) => package::main(&args),
        Command::BuildEbpf => workspace::build_ebpf().map(|_| ExitCode::SUCCESS),
        Command::Demo => demo::main(),
        Command::Picture => picture::main(),
        Command::Run(args) => run::main(&args),
        Command::Test(args) => test::main(&args),
        Command::Bench(args) => bench::main(&args),
        Command::Verdicts => verdicts::main(),
        Command::Fuzz(args) => fuzz::main(&args),
        Command::Vm(args) => vm::main(args),
        Command::Kernels => kernels::main(),
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
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_line_is_valid() {
        super::Cli::command().debug_assert();
    }

    /// Those of latency-user are run by the kernel tests.
    #[test]
    fn commands_in_documents_are_understood() {
        let root = crate::workspace::root();
        let mut commands = 0;
        let documents = ["", "docs", "docs/decisions", "latency-user/src/recording"];
        let entries = documents.iter().flat_map(|folder| root.join(folder).read_dir().unwrap());
        let files = entries.map(|entry| entry.unwrap().path());
        for file in files.filter(|file| file.extension().is_some_and(|name| name == "md")) {
            let text = std::fs::read_to_string(&file).unwrap();
            let file = file.display();
            for line in text.lines().filter(|line| line.starts_with("cargo xtask ")) {
                let line = line.split(" #").next().unwrap_or_default();
                let words = line.split_whitespace().skip(1);
                let parsed = super::Cli::try_parse_from(words);
                assert!(parsed.is_ok(), "{file}: {line}: {}", parsed.err().unwrap());
                commands += 1;
            }
        }
        assert!(commands > 10, "only {commands} commands were found");
    }
}
