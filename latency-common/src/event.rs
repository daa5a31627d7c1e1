//! What travels through the ring buffer.

/// One timed interval, sent when events travel through the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntervalEvent {
    /// End of the interval, `CLOCK_MONOTONIC`, ns.
    pub end_ns: u64,
    /// Its duration, ns.
    pub duration_ns: u64,
    /// Index of the row that counts it, as [`crate::slot::RowLayout`] arranges them.
    pub row: u32,
    /// Packets that a NAPI poll processed; 0 for other stages.
    pub work: u32,
}

const _: () = assert!(size_of::<IntervalEvent>() == 24);

impl IntervalEvent {
    /// Bytes of one event in the ring buffer: its fields in their order, in the machine's byte
    /// order.
    pub const SIZE: usize = size_of::<Self>();
}
