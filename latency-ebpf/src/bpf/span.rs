//! The result of a probe: a finished span.

use latency_common::stage::Stage;

/// One finished span.
pub(crate) struct Span {
    pub(crate) stage: Stage,
    /// Index of the row that counts it.
    pub(crate) row: u32,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    /// Packets processed by a NAPI poll.
    pub(crate) work: u32,
}
