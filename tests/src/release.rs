//! The release of the running kernel.

use std::fs;

/// Whether the kernel has trampolines, which fentry needs.
pub fn has_trampolines() -> bool {
    cfg!(target_arch = "x86_64") || !is_before(6, 4)
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
