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
    /// Bytes of one event in the ring buffer.
    pub const SIZE: usize = size_of::<Self>();

    /// Reads an event from ring-buffer bytes; `None` when their number is not [`Self::SIZE`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::SIZE] = bytes.try_into().ok()?;
        let (end, rest) = bytes.split_first_chunk()?;
        let (duration, rest) = rest.split_first_chunk()?;
        let (row, rest) = rest.split_first_chunk()?;
        let (work, _) = rest.split_first_chunk()?;
        Some(Self {
            end_ns: u64::from_ne_bytes(*end),
            duration_ns: u64::from_ne_bytes(*duration),
            row: u32::from_ne_bytes(*row),
            work: u32::from_ne_bytes(*work),
        })
    }
}
