//! Payload of the optional per-event ring buffer (`--transport ring|both`). For stall records see
//! [`crate::stall_record`].

/// One timed span.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanEvent {
    /// End of the span, `CLOCK_MONOTONIC`, ns.
    pub end_ns: u64,
    /// Duration, ns.
    pub duration_ns: u64,
    /// Index of the row that counts it; see [`crate::row_layout::RowLayout`].
    pub row: u32,
    /// Packets processed by a NAPI poll; 0 for other stages.
    pub work: u32,
}

const _: () = assert!(size_of::<SpanEvent>() == 24);

impl SpanEvent {
    /// Bytes of one event in the ring buffer: its fields in declaration order, in native byte
    /// order.
    pub const SIZE: usize = size_of::<Self>();
}
