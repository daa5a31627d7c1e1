//! `cargo xtask build`: latency-user as one static program that runs on any distribution.
//!
//! `programs` builds it and other programs, `cross` brings the tools for another architecture than the
//! machine's, `elf` checks the result.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;

use crate::{architecture::Architecture, process, setup};

mod cross;
mod elf;
mod programs;

pub(crate) use programs::{
    GuestPrograms, guest_programs, release_binary, release_binary_for, release_directory,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Machines to build for, as cargo names them [default: this one]
    #[arg(long, value_name = "TARGET", value_parser = Architecture::of_target)]
    target: Option<Architecture>,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(setup::Level::Build)?;
    let architecture = args.target.map_or_else(Architecture::host, Ok)?;
    let program = latency_user(architecture)?;
    println!("{}", program.display());
    Ok(ExitCode::SUCCESS)
}

/// Brings the tools that compile for another architecture; an error where they cannot be had.
pub(crate) fn cross_tools(architecture: Architecture) -> Result<()> {
    cross::Cross::fetch(architecture).map(drop)
}

/// Builds latency-user and checks that it is static.
pub(crate) fn latency_user(architecture: Architecture) -> Result<PathBuf> {
    let program = release_binary_for("latency-user", "latency-user", architecture)?;
    let bytes = elf::check(&program, architecture)?;
    process::step(&format!("latency-user is static, {:.1} MB", bytes as f64 / 1e6));
    Ok(program)
}
