//! The command line: one module per command, and the list of commands. A command combines the
//! modules of this crate and prints through the writers of its [`Console`].

pub mod capture;
pub mod compare;
pub mod doctor;
pub mod dump;
pub mod experiment;
pub mod merge;
pub mod report;
pub mod serve;
pub mod trace;
pub mod tracer;
pub mod triage;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{
    cli::{Console, version::VERSION},
    kernel::{self, confine::Task},
    model::exit::Exit,
};

/// Find softirq stalls in the Linux network path: which CPU and which NIC queue stalled packet
/// processing, for how long, how often, and in which functions.
#[derive(Debug, Parser)]
#[command(name = "latency-user", version = VERSION, max_term_width = 80, subcommand_required = true)]
#[command(after_help = "Exit status: 0 success; 1 error; 2 usage; 3 missing privilege or kernel \
                        feature; 4 something was found.\n\
                        Shell completion: source <(COMPLETE=bash latency-user); also zsh, fish.")]
pub struct Cli {
    /// Explain on stderr which probes, names and fallbacks are chosen (-vv: details). RUST_LOG, if
    /// set, wins
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Time softirqs, NAPI polls, hard IRQs and tcp_collapse on the running kernel
    Trace(trace::Arguments),
    /// Trace all the time: metrics, a page, and recordings of the minutes around each stall
    Serve(serve::Arguments),
    /// Ask the daemon for a recording of the last minutes
    Dump(dump::Arguments),
    /// Show recordings as tables, JSON, CSV or a page to send
    Report(report::Arguments),
    /// Compare two recordings and test whether stalls changed
    Compare(compare::Arguments),
    /// Merge recordings into one; counts are exact
    Merge(merge::Arguments),
    /// Change one setting, measure without it and with it in turn, put it back
    Experiment(experiment::Arguments),
    /// Put an experiment's setting back when its process dies.
    #[command(name = experiment::WATCHDOG, hide = true)]
    WatchExperiment(experiment::WatchArguments),
    /// Check kernel, privileges and NICs, and show which probes work
    Doctor(doctor::Arguments),
    /// Judge this host, or a captured one: from "latency spiked" to a next step
    Triage(triage::Arguments),
    /// Collect what triage reads, to judge the host elsewhere
    Capture(capture::Arguments),
}

/// Gives up the privileges that `task` does not need. A kernel that cannot do it is no obstacle.
fn confine(task: Task) {
    match kernel::confine::confine(task) {
        Ok(kept) => {
            let kept: Vec<String> =
                kept.iter().map(|(capability, why)| format!("{capability} ({why})")).collect();
            log::info!("privileges given up; kept: {}", kept.join(", "));
        }
        Err(error) => log::warn!("not all privileges could be given up: {error:#}"),
    }
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// What the command fails with; a [`crate::model::failure::Failure`] has the exit status.
    pub fn run(&self, mut console: Console) -> Result<Exit> {
        let undoes = match &self.command {
            Command::Experiment(arguments) => arguments.undo,
            Command::WatchExperiment(_) => true,
            _ => false,
        };
        if !undoes {
            experiment::mention(&mut console.err);
        }
        match &self.command {
            Command::Trace(arguments) => trace::run(arguments, self.verbose > 0, console),
            Command::Serve(arguments) => serve::run(arguments, console),
            Command::Dump(arguments) => dump::run(arguments, console),
            Command::Report(arguments) => report::run(arguments, console),
            Command::Compare(arguments) => compare::run(arguments, console),
            Command::Merge(arguments) => merge::run(arguments, console),
            Command::Experiment(arguments) => experiment::run(arguments, console),
            Command::WatchExperiment(arguments) => experiment::watch(arguments, console),
            Command::Doctor(arguments) => doctor::run(arguments, console),
            Command::Triage(arguments) => triage::run(arguments, console),
            Command::Capture(arguments) => capture::run(arguments, console),
        }
    }
}
