//! A task, as the kernel side records it.

/// Length of a task's name with its terminating NUL (`TASK_COMM_LEN`).
pub const COMM_LENGTH: usize = 16;

/// A task.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskRecord {
    /// Thread id.
    pub pid: u32,
    /// Explicit padding.
    pub reserved: u32,
    /// Its name, padded with NULs.
    pub comm: [u8; COMM_LENGTH],
}
