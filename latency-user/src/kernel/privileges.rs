//! Privileges of this process, checked before anything is attached.

use caps::{CapSet, Capability};

use crate::model::{failure::Failure, note::Note};

/// The capabilities for loading and attaching, and what fails without each.
const NEEDED: [(Capability, &str); 2] = [
    (Capability::CAP_BPF, "eBPF programs and maps cannot be loaded"),
    (Capability::CAP_PERFMON, "programs cannot be attached to tracepoints and functions"),
];

/// Capabilities that this process lacks, and what fails without them.
///
/// `CAP_SYS_ADMIN` includes all of them, as in the kernel.
pub fn missing() -> Vec<Note> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    if has(Capability::CAP_SYS_ADMIN) {
        return Vec::new();
    }
    let missing = NEEDED.into_iter().filter(|(capability, _)| !has(*capability));
    missing
        .map(|(capability, consequence)| Note::MissingCapability {
            capability: capability.to_string(),
            consequence: consequence.to_owned(),
        })
        .collect()
}

/// Checks the privileges for tracing.
///
/// # Errors
///
/// A capability is missing. Lists all that are, and what fails without each.
pub fn check() -> Result<(), Failure> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = missing.iter().map(Note::to_string).collect();
    Err(Failure::unsupported(list.join("; "))
        .hint("run it as root (sudo), or grant CAP_BPF and CAP_PERFMON"))
}
