//! `triage`: judges this host, or one that was captured.

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use clap_complete::ArgValueCandidates;

use crate::cli::Console;
use crate::cli::{
    stdout::Output,
    values::{self, Format},
};
use crate::{
    host::nic::ethtool::EthtoolDirectory,
    model::failure::Failure,
    triage::{self, Host},
    views::{self, Style},
};

/// What to judge.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  This host, over 5 seconds:
      sudo latency-user triage
  One interface, for longer, every answer shown:
      sudo latency-user triage --iface eth0 --duration 30s --all
  A host that was captured elsewhere:
      latency-user capture --output web-17.tar.gz
      mkdir web-17; tar -xzf web-17.tar.gz -C web-17
      latency-user triage --root web-17
  As JSON, a finding a line:
      latency-user triage --format json | jq 'select(.kind == \"finding\")'

It changes nothing. Exit status: 0 nothing found, 4 findings.")]
pub struct Arguments {
    /// Judge this interface; repeatable; none: those that are up or carry packets.
    #[arg(short, long, value_name = "IF", add = ArgValueCandidates::new(values::interfaces))]
    pub iface: Vec<String>,
    /// Time between the two samples.
    #[arg(short, long, value_parser = values::duration, default_value = "5s",
          conflicts_with = "root")]
    pub duration: Duration,
    /// Judge the host whose capture was unpacked in this folder.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub root: Option<PathBuf>,
    /// Do not trace meanwhile, even if it would be possible.
    #[arg(long)]
    pub no_trace: bool,
    /// Also write what was read to this file, as capture does.
    #[arg(long, value_name = "FILE.tar.gz", value_hint = ValueHint::FilePath,
          conflicts_with = "root")]
    pub capture: Option<PathBuf>,
    /// Show every rule's answer in the tree.
    #[arg(short, long)]
    pub all: bool,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: Format,
}

/// Runs the command and returns the exit status: 4 when something was found.
///
/// # Errors
///
/// When the host cannot be sampled or loaded, when it lacks an interface that was named, or when
/// the output cannot be written.
pub fn run(args: &Arguments, console: Console) -> Result<u8> {
    // Opened first: a wrong name should not cost the time of the samples.
    let file = args.capture.as_deref().map(create).transpose()?;
    let host = match &args.root {
        Some(folder) => triage::load(folder)?,
        None => {
            let mut nics = EthtoolDirectory::new();
            triage::sample(Path::new("/"), &mut nics, args.duration, !args.no_trace)
        }
    };
    if let Some(file) = file {
        triage::save(&host, BufWriter::new(file))?;
    }
    let judged = triage::judge(&host, &interfaces(&host, &args.iface)?);
    let mut text = Vec::new();
    match args.format {
        Format::Table => {
            let style = Style { colour: console.colour, width: Style::MAX_WIDTH };
            views::triage::triage(&judged, args.all, style, &mut text)?;
        }
        Format::Json => views::json::triage(&judged, &mut text)?,
    }
    Output::new(console.out, 0).write(&text)?;
    Ok(if judged.found > 0 { 4 } else { 0 })
}

/// Creates the file of a capture.
///
/// # Errors
///
/// When the kernel refuses it.
pub(super) fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("create {}", path.display()))
}

fn interfaces(host: &Host, asked: &[String]) -> Result<Vec<String>> {
    if asked.is_empty() {
        return Ok(host.busy_interfaces());
    }
    if let Some(unknown) = asked.iter().find(|name| !host.has_interface(name)) {
        return Err(Failure::new(format!("the host has no interface {unknown:?}"))
            .hint("without --iface all that are up or carry packets are judged")
            .into());
    }
    Ok(asked.to_vec())
}
