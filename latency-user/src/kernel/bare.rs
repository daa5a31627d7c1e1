//! Programs of a few instructions, which are loaded and attached to nothing.

use std::{
    io,
    mem::offset_of,
    os::fd::{FromRawFd, OwnedFd},
};

/// `BPF_PROG_LOAD`, `BPF_PROG_TYPE_RAW_TRACEPOINT`, `BPF_PROG_TYPE_TRACING` and `BPF_TRACE_FENTRY` of
/// `linux/bpf.h`.
const LOAD: libc::c_int = 5;
pub(super) const RAW_TRACEPOINT: u32 = 17;
const TRACING: u32 = 26;
const FENTRY: u32 = 24;

/// `r0 = 0; exit`.
pub(super) const NOTHING: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

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
    interface: u32,
    attach_type: u32,
    types: u32,
    function_info: [u32; 4],
    line_info: [u32; 4],
    /// Id of the traced function's type.
    traced_function: u32,
}

const _: () = assert!(offset_of!(LoadAttributes, traced_function) == 108);

/// Loads `instructions` as a raw tracepoint program with a `name` of up to 15 bytes.
pub(super) fn load(name: &str, instructions: &[[u8; 8]]) -> io::Result<OwnedFd> {
    let attributes = LoadAttributes { program_type: RAW_TRACEPOINT, ..LoadAttributes::default() };
    load_with(attributes, name, instructions)
}

/// Whether the kernel accepts a program on the entry of a function, given the id of its type.
///
/// # Errors
///
/// The kernel's, if it refuses.
pub(super) fn accepts_fentry(function: u32) -> io::Result<()> {
    let attributes = LoadAttributes {
        program_type: TRACING,
        attach_type: FENTRY,
        traced_function: function,
        ..LoadAttributes::default()
    };
    load_with(attributes, "fentry", &NOTHING).map(drop)
}

fn load_with(
    mut attributes: LoadAttributes,
    name: &str,
    instructions: &[[u8; 8]],
) -> io::Result<OwnedFd> {
    attributes.instructions = instructions.len() as u32;
    attributes.address = instructions.as_ptr() as u64;
    attributes.license = c"GPL".as_ptr() as u64;
    attributes.name[..name.len()].copy_from_slice(name.as_bytes());
    match load_once(&attributes) {
        // Before Linux 5.11 programs are locked memory, of which a user may have little.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && lift_memory_limit() => {
            load_once(&attributes)
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

fn load_once(attributes: &LoadAttributes) -> io::Result<OwnedFd> {
    let size = size_of::<LoadAttributes>();
    // SAFETY: the attributes, and the program and the license that they point to, are valid for the
    // time of the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, LOAD, &raw const *attributes, size) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
