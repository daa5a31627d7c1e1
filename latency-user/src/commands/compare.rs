//! `compare`: tells whether a change helped.

use std::{io::Write, path::PathBuf};

use anyhow::Result;
use clap::{Args, ValueHint};

use crate::cli::Console;
use crate::cli::{stdout::Output, values::Format};
use crate::{
    compare::{Recorded, compare},
    model::comparison::Verdict,
    views::{self, Style},
};

/// What to compare.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Exit status: 4 when it became worse, 0 otherwise.

Examples:
  Did a smaller receive buffer help?
      latency-user trace --duration 60s --output before.hlog
      sysctl -w net.ipv4.tcp_rmem='4096 1048576 2097152'
      latency-user trace --duration 60s --output after.hlog
      latency-user compare before.hlog after.hlog
  In a pipeline that must fail when a new kernel is worse:
      latency-user compare old.hlog new.hlog --format json > verdict.json")]
pub struct Arguments {
    /// The recording before the change.
    #[arg(value_name = "BEFORE", value_hint = ValueHint::FilePath)]
    pub before: PathBuf,
    /// The recording after it.
    #[arg(value_name = "AFTER", value_hint = ValueHint::FilePath)]
    pub after: PathBuf,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: Format,
}

/// Runs the command and returns the exit status: 4 when it became worse.
///
/// # Errors
///
/// When a recording cannot be read.
pub fn run(args: &Arguments, mut console: Console) -> Result<u8> {
    let (before, after) = (Recorded::read(&args.before)?, Recorded::read(&args.after)?);
    for remark in before.remarks().iter().chain(after.remarks()) {
        writeln!(console.err, "warning: {remark}")?;
    }
    let comparison = compare(&before, &after);
    let mut text = Vec::new();
    match args.format {
        Format::Table => {
            let style = Style { colour: console.colour, width: Style::MAX_WIDTH };
            views::comparison::comparison(&comparison, style, &mut text)?;
        }
        Format::Json => views::json::comparison(&comparison, &mut text)?,
    }
    Output::new(console.out, 0).write(&text)?;
    Ok(if comparison.verdict == Verdict::Worse { 4 } else { 0 })
}
