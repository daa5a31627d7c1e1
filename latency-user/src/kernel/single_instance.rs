//! One tracer at a time: two would time each other's probes.
//!
//! A tracer keeps a program with a name of its own loaded, which is attached to nothing. The kernel
//! lists it to tracers in all containers, only processes that may trace can load it, and it goes
//! with the process. Of two tracers that start at the same time the one whose program is older stays.

use std::{
    fs,
    io::{self, ErrorKind},
    os::fd::{AsRawFd, OwnedFd},
};

use aya::programs::{ProgramInfo, loaded_programs};

use super::bare::{self, NOTHING, RAW_TRACEPOINT};
use crate::model::failure::Failure;

/// The name of the program.
const NAME: &str = "latency_user";

/// Held while tracing.
#[derive(Debug)]
pub struct SingleInstance {
    _program: OwnedFd,
}

impl SingleInstance {
    /// Makes this process the one that traces. Without `CAP_SYS_ADMIN` the kernel does not list
    /// programs, so that other tracers cannot be found; a warning is logged then.
    ///
    /// # Errors
    ///
    /// Another process traces, which the error names; exit status 1. Or the kernel loads no program.
    pub fn claim() -> Result<Self, Failure> {
        let program = bare::load(NAME, &NOTHING).map_err(|error| {
            Failure::unsupported(format!("the kernel refuses an eBPF program: {error}"))
                .hint("`latency-user doctor` shows what is missing")
        })?;
        match others(&program) {
            Ok(ids) if ids.is_empty() => Ok(Self { _program: program }),
            Ok(ids) => Err(refuse(&ids)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                log::warn!("other tracers cannot be found without CAP_SYS_ADMIN");
                Ok(Self { _program: program })
            }
            Err(error) => {
                Err(Failure::new(format!("cannot list the kernel's eBPF programs: {error}")))
            }
        }
    }
}

fn refuse(ids: &[u32]) -> Failure {
    let holder = match holder(ids) {
        Some(pid) => format!("process {pid}"),
        None => "a process that is not visible here, as in another container".to_owned(),
    };
    Failure::new(format!("another latency-user is tracing: {holder}"))
        .hint("wait until it ends, or stop it with Ctrl-C or SIGTERM")
}

/// The programs of other tracers that were there before ours.
fn others(ours: &OwnedFd) -> io::Result<Vec<u32>> {
    let own = format!("/proc/self/fdinfo/{}", ours.as_raw_fd());
    let own = program_id(&own).ok_or_else(|| {
        io::Error::other(format!("{own} does not give its own one's number: is /proc mounted?"))
    })?;
    let mut ids = Vec::new();
    for program in loaded_programs() {
        match program {
            Ok(program) if is_marker(&program) && program.id() < own => ids.push(program.id()),
            Ok(_) => {}
            Err(error) => {
                let error = io::Error::from(io_error(&error).unwrap_or(ErrorKind::Other));
                // A program that was unloaded meanwhile.
                if error.kind() != ErrorKind::NotFound {
                    return Err(error);
                }
            }
        }
    }
    Ok(ids)
}

fn is_marker(program: &ProgramInfo) -> bool {
    program.name_as_str() == Some(NAME) && program.program_type() as u32 == RAW_TRACEPOINT
}

/// The kind of the system's error behind one of aya's.
fn io_error(error: &dyn std::error::Error) -> Option<ErrorKind> {
    let mut error: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(inner) = error {
        if let Some(inner) = inner.downcast_ref::<io::Error>() {
            return Some(inner.kind());
        }
        error = inner.source();
    }
    None
}

/// A process that has one of these programs open.
fn holder(ids: &[u32]) -> Option<u32> {
    let names = |directory: String| {
        let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    let mut pids = names("/proc".into()).filter_map(|name| name.parse::<u32>().ok());
    pids.find(|pid| {
        names(format!("/proc/{pid}/fdinfo"))
            .filter_map(|fd| program_id(&format!("/proc/{pid}/fdinfo/{fd}")))
            .any(|id| ids.contains(&id))
    })
}

/// The `prog_id` of a descriptor; `None`: it is no program.
fn program_id(fdinfo: &str) -> Option<u32> {
    let text = fs::read_to_string(fdinfo).ok()?;
    text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
}
