//! The version, with the commit and the eBPF object that this binary carries.

/// `0.1.0 (9689572, eBPF object 1a2b3c4d)`: the commit is absent when the source was no checkout, and
/// has a `+` behind it when files were changed.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), env!("LATENCY_USER_BUILD"));
