//! The version, with the commit and the eBPF object that this binary carries.

/// `0.1.0 (commit 9689572c1a2b, eBPF object 1a2b3c4d5e6f)`: the commit is absent if the source was
/// no git checkout, and is followed by `+` if tracked files were changed.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), env!("LATENCY_USER_BUILD"));
