//! What the running kernel has: by its release, and by its symbols.

use std::fs;

/// Whether the kernel has trampolines, which fentry needs.
pub fn has_trampolines() -> bool {
    cfg!(target_arch = "x86_64") || !is_before(6, 4)
}

/// Whether each NAPI poll is a call of a function, which probes can be attached to. It is not before
/// 5.12, nor where the compiler inlined it, as in Debian's PREEMPT_RT kernels.
pub fn has_poll_function() -> bool {
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    symbols.lines().any(|line| line.split_whitespace().nth(2) == Some("__napi_poll"))
}

/// Whether softirqs run in tasks, which are preempted like others.
pub fn is_preempt_rt() -> bool {
    fs::read_to_string("/sys/kernel/realtime").is_ok_and(|text| text.trim() == "1")
}

/// Whether packets that are steered to another CPU are polled by a thread there instead of in
/// NET_RX: on PREEMPT_RT since 6.10, elsewhere with `thread_backlog_napi`.
pub fn has_backlog_threads() -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let mut names =
        processes.filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok());
    names.any(|name| name.starts_with("backlog_napi/"))
}

/// Whether the kernel is older than a release, such as 5.13.
pub fn is_before(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(found), Some(found_minor)) => (found, found_minor) < (major, minor),
        _ => false,
    }
}
