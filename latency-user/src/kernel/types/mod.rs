//! The kernel's types and symbols: BTF, struct offsets, kallsyms.

pub mod addresses;
pub mod btf;
#[cfg(test)]
pub(in crate::kernel) mod fixtures;
pub mod kallsyms;
pub mod offsets;
pub mod symbols;
