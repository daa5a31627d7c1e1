//! The contract between kernel and user space: what lies in the maps and in the ring buffers.
//!
//! Owns the bucket arithmetic, the layout of rows, slots, per-CPU state, records and events, and
//! the numbers that name stages. It is `no_std`, has no features and no dependencies, and knows
//! nothing of aya: the BPF build and the host build see the very same code.
#![no_std]

pub mod bucket;
pub mod collapse_call;
pub mod cpu_state;
pub mod row;
pub mod row_layout;
pub mod slot;
pub mod span_event;
pub mod stage;
pub mod stall_record;
