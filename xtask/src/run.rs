//! `cargo xtask run`: builds latency-user and execs it as root.
//!
//! latency-user's build script compiles the eBPF programs.

use std::{ffi::OsString, os::unix::process::CommandExt, process::ExitCode};

use anyhow::{Context, Result};

use crate::{build, process};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Arguments for latency-user
    #[arg(last = true)]
    args: Vec<OsString>,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let program = build::release_binary("latency-user", "latency-user")?;
    let mut command = process::as_root(program)?;
    // exec, so that signals and the exit status need no forwarding.
    let error = command.args(&args.args).exec();
    Err(error).with_context(|| format!("cannot start `{}`", process::line(&command)))
}
