//! The same benchmark in a virtual machine, whose kernel has the probes that this one may lack.
//!
//! Emulated, everything is 10 to 50 times slower: only ratios mean something, so no goal is
//! judged there.

use std::{env, fs::File, io::Write, process::ExitCode, time::Duration};

use anyhow::{Context, Result};

use super::{Args, Built, contenders};
use crate::{build_ebpf, vm};

/// Longest that a machine lives: a slice is short, but bpftrace's start is not.
const DEADLINE: Duration = Duration::from_secs(60 * 60);

/// What can be measured there: what runs in the kernel.
const PARTS: &str = "per-event,rate";

/// Boots `kernel` and measures there; the outcome as JSON goes to `json`.
pub(crate) fn run(
    kernel: &str,
    args: &Args,
    built: &Built,
    json: Option<File>,
) -> Result<ExitCode> {
    let program = env::current_exe().context("cannot tell where this program lies")?;
    let mut command = vec![program.to_string_lossy().into_owned(), "bench".to_owned()];
    command.extend(["--prebuilt", "--methods", "--only", PARTS].map(str::to_owned));
    match args.quick {
        true => command.push("--quick".to_owned()),
        false => {
            command.extend([format!("--rounds={}", args.rounds), format!("--slice={}", args.slice)])
        }
    }
    if json.is_some() {
        command.push("--json=/dev/stdout".to_owned());
    }
    let rivals = contenders::GUEST_PROGRAMS.into_iter().filter_map(build_ebpf::find_program);
    let guest = vm::Guest {
        // As packages name it, or as Debian's users do.
        kernel: kernel.strip_prefix("debian-").unwrap_or(kernel).to_owned(),
        command,
        variables: Vec::new(),
        files: built.files().into_iter().cloned().chain(rivals).collect(),
        deadline: DEADLINE,
    };
    let mut found = None;
    let status = vm::boot(&guest, &mut |line| {
        if line.starts_with(JSON_BEGINS) {
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
const JSON_BEGINS: &str = r#"{"checks":"#;
