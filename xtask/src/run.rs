//! `cargo xtask run`: builds latency-user and becomes it, as root.
//!
//! Owns nothing else; the eBPF programs are compiled by latency-user's build script.

use std::{ffi::OsString, os::unix::process::CommandExt, process::ExitCode};

use anyhow::{Context, Result};

use crate::{process, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Arguments for latency-user
    #[arg(last = true)]
    args: Vec<OsString>,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let program = workspace::release_binary("latency-user", "latency-user")?;
    let mut command = process::as_root(program)?;
    // Replaced, not started: signals and the exit status then need no passing on.
    let error = command.args(&args.args).exec();
    Err(error).with_context(|| format!("cannot start `{}`", process::line(&command)))
}
