//! Programs of a few instructions, which are loaded and attached to nothing.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

/// `BPF_PROG_LOAD` and `BPF_PROG_TYPE_RAW_TRACEPOINT` of `linux/bpf.h`.
const LOAD: libc::c_int = 5;
pub(super) const RAW_TRACEPOINT: u32 = 17;

/// The attributes of `BPF_PROG_LOAD`, as far as they are used (`linux/bpf.h`).
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instructions: u32,
    address: u64,
    license: u64,
    log: [u32; 2],
    log_address: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// Loads `instructions` as a raw tracepoint program with a `name` of up to 15 bytes.
pub(super) fn load(name: &str, instructions: &[[u8; 8]]) -> io::Result<OwnedFd> {
    match load_once(name, instructions) {
        // Before Linux 5.11 programs are locked memory, of which a user may have little.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && lift_memory_limit() => {
            load_once(name, instructions)
        }
        outcome => outcome,
    }
}

/// Lets this process lock any amount of memory; `false`: it may not.
fn lift_memory_limit() -> bool {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limit is valid for the time of the call.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) == 0 }
}

fn load_once(name: &str, instructions: &[[u8; 8]]) -> io::Result<OwnedFd> {
    let mut attributes = LoadAttributes {
        program_type: RAW_TRACEPOINT,
        instructions: instructions.len() as u32,
        address: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..LoadAttributes::default()
    };
    attributes.name[..name.len()].copy_from_slice(name.as_bytes());
    let size = size_of::<LoadAttributes>();
    // SAFETY: the attributes, the program and the license are valid for the time of the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, LOAD, &raw const attributes, size) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
