//! Missed runs: programs that the kernel skipped, and probes that it missed.

use std::{
    fs, io,
    mem::{MaybeUninit, offset_of},
    os::fd::{AsFd, AsRawFd, RawFd},
};

use aya_obj::generated::{bpf_cmd, bpf_prog_info};

/// `BPF_LINK_TYPE_PERF_EVENT`.
const LINK_PERF_EVENT: u32 = 7;
/// `BPF_PERF_EVENT_KPROBE` and `BPF_PERF_EVENT_KRETPROBE`.
const PERF_KPROBES: [u32; 2] = [3, 4];

/// The first fields of `struct bpf_link_info` for links of kprobes.
///
/// <https://elixir.bootlin.com/linux/v6.12/source/include/uapi/linux/bpf.h#L6685>
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct KprobeLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    perf_kind: u32,
    padding: u32,
    name: u64,
    name_length: u32,
    offset: u32,
    address: u64,
    missed: u64,
    cookie: u64,
}

const _: () = assert!(offset_of!(KprobeLinkInfo, missed) == 48);

/// Attributes of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// Runs of a program that the kernel skipped, because it was already running on the CPU.
///
/// # Errors
///
/// When the kernel does not report it.
pub fn recursion_misses(program: &impl AsFd) -> io::Result<u64> {
    let mut info = MaybeUninit::<bpf_prog_info>::zeroed();
    // SAFETY: the struct is made of integers, for which all bytes are valid.
    unsafe {
        info_of(program.as_fd().as_raw_fd(), info.as_mut_ptr().cast(), size_of::<bpf_prog_info>())?;
        Ok(info.assume_init().recursion_misses)
    }
}

/// For each kprobe link of this process: the id of its program, and the calls that its probe missed
/// (`nmissed`). Kernels before 6.7 do not report them; the caller checks this.
pub fn kprobe_misses() -> Vec<(u32, u64)> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| {
            fs::read_link(entry.path())
                .is_ok_and(|target| target.to_string_lossy().contains("bpf_link"))
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok())
        .filter_map(|fd| {
            let mut info = KprobeLinkInfo::default();
            // SAFETY: as in `recursion_misses`.
            unsafe { info_of(fd, (&raw mut info).cast(), size_of_val(&info)) }.ok()?;
            let is_kprobe = info.kind == LINK_PERF_EVENT && PERF_KPROBES.contains(&info.perf_kind);
            is_kprobe.then_some((info.program, info.missed))
        })
        .collect()
}

/// Gets the kernel's info on a program or link by its descriptor.
///
/// # Safety
///
/// `info` is valid for writes of `length` bytes.
unsafe fn info_of(fd: RawFd, info: *mut u8, length: usize) -> io::Result<()> {
    let attributes = InfoAttributes { fd: fd as u32, length: length as u32, info: info as u64 };
    // SAFETY: the attributes are valid for the call, and `info` as the caller promises.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_OBJ_GET_INFO_BY_FD as libc::c_ulong,
            &raw const attributes,
            size_of::<InfoAttributes>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
