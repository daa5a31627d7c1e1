//! What this process may do, said before anything is attached.

use caps::{CapSet, Capability};

use crate::model::failure::Failure;

/// The capabilities that loading and attaching need, and what each is for.
const NEEDED: [(Capability, &str); 2] = [
    (Capability::CAP_BPF, "eBPF programs and maps cannot be loaded"),
    (Capability::CAP_PERFMON, "programs cannot be attached to tracepoints and functions"),
];

/// Capabilities that this process lacks, with what cannot be done without them.
///
/// `CAP_SYS_ADMIN` stands in for all of them, as it does in the kernel.
pub fn missing() -> Vec<(Capability, &'static str)> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    if has(Capability::CAP_SYS_ADMIN) {
        return Vec::new();
    }
    NEEDED.into_iter().filter(|(capability, _)| !has(*capability)).collect()
}

/// Checks the privileges for tracing.
///
/// # Errors
///
/// Names every missing capability and what cannot be done without it; exit status 3.
pub fn check() -> Result<(), Failure> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = missing
        .iter()
        .map(|(capability, what)| format!("{capability} is missing: {what}"))
        .collect();
    Err(Failure::missing(list.join("; "))
        .hint("run it as root (sudo), or grant CAP_BPF and CAP_PERFMON"))
}
