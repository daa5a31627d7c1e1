//! Runs the benchmark in a virtual machine, whose kernel has probes that this one may lack.
//!
//! Emulation is 10 to 50 times slower: only ratios mean something, so no goal is judged there.

use std::{env, fs::File, io::Write, process::ExitCode, time::Duration};

use anyhow::{Context, Result};

use super::{args::Args, built::Built, tools};
use crate::{architecture::Architecture, build_ebpf, vm};

/// Longest run of the machine. Slices are short, but bpftrace takes long to start.
const DEADLINE: Duration = Duration::from_secs(60 * 60);

/// Benchmarks that run there: those of the kernel side.
const BENCHMARKS: &str = "per-event,rate";

/// Boots `kernel`, measures there and writes the results to `json`.
pub(crate) fn run(
    kernel: &str,
    args: &Args,
    built: &Built,
    json: Option<File>,
) -> Result<ExitCode> {
    let program = env::current_exe().context("cannot find the path of this program")?;
    let mut command = vec![program.to_string_lossy().into_owned(), "bench".to_owned()];
    command.extend(["--prebuilt", "--methods", "--only", BENCHMARKS].map(str::to_owned));
    match args.quick {
        true => command.push("--quick".to_owned()),
        false => {
            command.extend([format!("--rounds={}", args.rounds), format!("--slice={}", args.slice)])
        }
    }
    if args.rezolus {
        command.push("--rezolus".to_owned());
    }
    if json.is_some() {
        command.push("--json=/dev/stdout".to_owned());
    }
    let baselines = tools::GUEST_PROGRAMS.into_iter().filter_map(build_ebpf::find_program);
    let rezolus = args.rezolus.then(tools::rezolus::files).into_iter().flatten();
    let guest = vm::Guest {
        // Accepts both `6.12`, as in package names, and `debian-6.12`.
        kernel: kernel.strip_prefix("debian-").unwrap_or(kernel).to_owned(),
        architecture: Architecture::host()?,
        command,
        variables: Vec::new(),
        files: built.files().into_iter().cloned().chain(baselines).chain(rezolus).collect(),
        nics: Vec::new(),
        deadline: DEADLINE,
    };
    let mut found = None;
    let status = vm::boot(&guest, &mut |line| {
        if line.starts_with(JSON_START) {
            found = Some(line.to_owned());
        }
    })?;
    if let Some(mut file) = json {
        let text = found.context("the virtual machine sent no JSON")?;
        file.write_all(text.as_bytes()).context("cannot write the JSON")?;
    }
    Ok(ExitCode::from(status))
}

/// Keys are sorted.
const JSON_START: &str = r#"{"checks":"#;
