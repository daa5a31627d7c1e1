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
    refuse(&missing())
}

/// Checks the privileges for experiments, which also change settings of the network.
///
/// # Errors
///
/// As [`check`].
pub fn check_experiment() -> Result<(), Failure> {
    let mut missing = missing();
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap_or(false) {
        missing.push(Note::MissingCapability {
            capability: Capability::CAP_NET_ADMIN.to_string(),
            consequence: "settings of the network cannot be changed".to_owned(),
        });
    }
    refuse(&missing)
}

fn refuse(missing: &[Note]) -> Result<(), Failure> {
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = missing.iter().map(Note::to_string).collect();
    Err(Failure::unsupported(list.join("; "))
        .hint("run it as root (sudo), or grant CAP_BPF and CAP_PERFMON"))
}
