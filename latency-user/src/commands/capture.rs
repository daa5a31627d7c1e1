//! `capture`: collects what triage reads, to judge the host elsewhere.

use std::{
    fmt::Write as _,
    io::BufWriter,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use clap::{Args, ValueHint};

use crate::{
    cli::{Console, new_file::NewFile, stdout::Output, values},
    host::nic::ethtool::EthtoolDirectory,
    model::exit::Exit,
    triage::{self, SampleConfig},
};

/// What to collect, and the output file.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  Collect, check the contents, judge elsewhere:
      sudo latency-user capture --output web-17.tar.gz
      tar -tzf web-17.tar.gz
      mkdir web-17; tar -xzf web-17.tar.gz -C web-17
      latency-user triage --root web-17
  Only list what would be collected:
      latency-user capture --list

It holds counters, settings, and the names of interfaces, IRQs and disks; no addresses and no host
name. Of processes it holds the CPU time of ksoftirqd, whether irqbalance runs, and one process id
in each network namespace.")]
pub struct Arguments {
    /// File to write
    #[arg(short, long, value_name = "FILE.tar.gz", value_hint = ValueHint::FilePath,
          required_unless_present = "list")]
    pub output: Option<PathBuf>,
    /// Permissions of the file, such as 644
    #[arg(long, value_name = "MODE", value_parser = values::mode,
          default_value = values::PRIVATE, requires = "output")]
    pub mode: u32,
    /// Time between the two samples
    #[arg(short, long, value_parser = values::duration, default_value = "5s")]
    pub duration: Duration,
    /// Only list what is collected
    #[arg(long, conflicts_with = "output")]
    pub list: bool,
}

/// Runs the command.
///
/// # Errors
///
/// When the file cannot be written.
pub fn run(args: &Arguments, console: Console) -> Result<Exit> {
    let Some(path) = &args.output else {
        let mut text = String::new();
        for line in triage::listed() {
            let _ = writeln!(text, "{line}");
        }
        Output::new(console.out, 0).write(text.as_bytes())?;
        return Ok(Exit::Ok);
    };
    let mut file = NewFile::private(path, args.mode, &[])?;
    let mut nics = EthtoolDirectory::new();
    let config =
        SampleConfig { duration: args.duration, trace: false, max_overhead: None, daemon: None };
    let host = triage::sample(Path::new("/"), &mut nics, &config);
    triage::save(&host, BufWriter::new(&mut file))?;
    file.finish()?;
    Ok(Exit::Ok)
}
