//! The contract between kernel and user: what lies in the maps and in the ring buffer.
//!
//! Owns the bucket arithmetic, the layout of rows, per-CPU state, slots and events, and the
//! numbers that name stages. It is `no_std`, has no features and no dependencies, and knows
//! nothing of aya: the BPF build and the host build see the very same code.
#![no_std]

pub mod bucket;
pub mod event;
pub mod record;
pub mod row;
pub mod slot;
pub mod stage;
pub mod state;
