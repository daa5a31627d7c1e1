//! `triage`: judges this host, or one that was captured.

use std::{
    io::BufWriter,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use clap::{Args, ValueHint};
use clap_complete::ArgValueCandidates;

use crate::{
    cli::{
        Console,
        new_file::NewFile,
        stdout::Output,
        values::{self, Format},
    },
    host::nic::ethtool::EthtoolDirectory,
    measure::daemon::SOCKET,
    model::{exit::Exit, failure::Failure},
    recording::output::PRIVATE,
    triage::{self, HostSnapshot, SampleConfig},
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

It changes nothing. Exit status 4: something was found.")]
pub struct Arguments {
    /// Judge IF (repeatable) [default: those that are up or carry packets]
    #[arg(short, long, value_name = "IF", add = ArgValueCandidates::new(values::interfaces))]
    pub iface: Vec<String>,
    /// Time between the two samples
    #[arg(short, long, value_parser = values::duration, default_value = "5s",
          conflicts_with = "root")]
    pub duration: Duration,
    /// Judge the host whose capture was unpacked in DIR
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub root: Option<PathBuf>,
    /// Do not run a short trace, even if possible
    #[arg(long)]
    pub no_trace: bool,
    /// Limit the programs of the short trace to this share of any CPU, such as 1%
    #[arg(long, value_name = "SHARE", value_parser = values::share, conflicts_with = "root")]
    pub max_overhead: Option<f64>,
    /// Also write what was read to a file, as capture does
    #[arg(long, value_name = "FILE.tar.gz", value_hint = ValueHint::FilePath,
          conflicts_with = "root")]
    pub capture: Option<PathBuf>,
    /// Control socket of a daemon, which traces if it is there
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, default_value = SOCKET)]
    pub socket: PathBuf,
    /// Show every rule's answer
    #[arg(short, long)]
    pub all: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: Format,
}

/// Runs the command: [`Exit::Found`] when something was found.
///
/// # Errors
///
/// When the host cannot be sampled or loaded, when it lacks an interface that was named, or when
/// the output cannot be written.
pub fn run(args: &Arguments, console: Console) -> Result<Exit> {
    // Open the file first: fail on a wrong name before sampling.
    let file =
        args.capture.as_deref().map(|path| NewFile::private(path, PRIVATE, &[])).transpose()?;
    let host = match &args.root {
        Some(directory) => triage::load(directory)?,
        None => {
            let mut nics = EthtoolDirectory::new();
            let config = SampleConfig {
                duration: args.duration,
                trace: !args.no_trace,
                max_overhead: args.max_overhead,
                daemon: Some(args.socket.clone()),
            };
            triage::sample(Path::new("/"), &mut nics, &config)
        }
    };
    if let Some(mut file) = file {
        triage::save(&host, BufWriter::new(&mut file))?;
        file.finish()?;
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
    Ok(if judged.found > 0 { Exit::Found } else { Exit::Ok })
}

fn interfaces(host: &HostSnapshot, asked: &[String]) -> Result<Vec<String>> {
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
