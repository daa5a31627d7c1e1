//! Payload of the optional per-event ring buffer (`--transport ring|both`). Records of stalls are
//! in [`crate::stall_record`].

/// One timed span.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanEvent {
    /// End of the span, `CLOCK_MONOTONIC`, ns.
    pub end_ns: u64,
    /// Its duration, ns.
    pub duration_ns: u64,
    /// Index of the row that counts it, as [`crate::row_layout::RowLayout`] arranges them.
    pub row: u32,
    /// Packets that a NAPI poll processed; 0 for other stages.
    pub work: u32,
}

const _: () = assert!(size_of::<SpanEvent>() == 24);

impl SpanEvent {
    /// Bytes of one event in the ring buffer: its fields in their order, in the machine's byte
    /// order.
    pub const SIZE: usize = size_of::<Self>();
}
