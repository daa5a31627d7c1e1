//! The command line: one module a command, and the list of them. A command puts the modules of
//! this crate together for one purpose; what it prints goes through the writers of its [`Console`].

pub mod capture;
pub mod compare;
pub mod doctor;
pub mod experiment;
pub mod merge;
pub mod report;
pub mod trace;
pub mod triage;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cli::Console;

/// Finds softirq stalls in the Linux network path: which CPU and which NIC queue stalled, for
/// how long, and how often.
#[derive(Debug, Parser)]
#[command(name = "latency-user", version, max_term_width = 80, subcommand_required = true)]
#[command(after_help = "Exit status: 0 fine; 1 could not do it; 2 usage; 3 missing privilege or \
                        kernel feature; 4 something was found.\n\
                        Completion: source <(COMPLETE=bash latency-user), zsh and fish likewise.")]
pub struct Cli {
    /// Tell more on stderr: what was tried, and the kernel side's own warnings.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Time softirqs, NAPI polls, hard IRQs and tcp_collapse on the running kernel.
    Trace(trace::Arguments),
    /// Show recordings: as tables, as JSON or CSV, as a page to send.
    Report(report::Arguments),
    /// Tell whether stalls became rarer from one recording to another, by more than chance.
    Compare(compare::Arguments),
    /// Add any number of recordings up to one.
    Merge(merge::Arguments),
    /// Change one thing, measure without it and with it in turn, and put it back.
    Experiment(experiment::Arguments),
    /// Put an experiment's setting back when its process dies.
    #[command(name = experiment::WATCHDOG, hide = true)]
    WatchExperiment(experiment::WatchArguments),
    /// Tell what this kernel, these privileges and these NICs allow, and why.
    Doctor(doctor::Arguments),
    /// Judge this host, or a captured one: from "latency spiked" to evidence and a next step.
    Triage(triage::Arguments),
    /// Collect what triage reads, so that a host can be judged elsewhere.
    Capture(capture::Arguments),
}

impl Cli {
    /// Runs the command and returns the exit status.
    ///
    /// # Errors
    ///
    /// What the command fails with; a [`crate::model::failure::Failure`] tells the exit status.
    pub fn run(&self, mut console: Console) -> Result<u8> {
        let clears_up = match &self.command {
            Command::Experiment(arguments) => arguments.undo,
            Command::WatchExperiment(_) => true,
            _ => false,
        };
        if !clears_up {
            experiment::mention(&mut console.err);
        }
        match &self.command {
            Command::Trace(arguments) => trace::run(arguments, self.verbose > 0, console),
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
