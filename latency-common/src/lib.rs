//! The contract between kernel and user space: the contents of maps and ring buffers.
//!
//! Owns the bucket arithmetic, the layout of rows, slots, per-CPU state, records and events, and
//! the numbers of stages. It is `no_std`, has no features and no dependencies, and does not depend
//! on aya: the BPF build and the host build use the same code.
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
pub mod task_record;
