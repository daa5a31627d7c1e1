//! Writes the manual pages of latency-user and its commands into a directory.

use std::{env, path::PathBuf};

use anyhow::{Context, Result};
use clap::CommandFactory;
use latency_user::commands::Cli;

fn main() -> Result<()> {
    let directory = env::args_os().nth(1).map(PathBuf::from).context("which directory?")?;
    // No date: pages change only with the program.
    clap_mangen::generate_to(Cli::command(), directory).context("write the pages")
}
