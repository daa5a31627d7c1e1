//! Counts of a recording, part by part.

/// Events and what they are counted against, part by part.
pub(super) struct Counts {
    pub(super) events: Vec<f64>,
    pub(super) exposure: Vec<f64>,
}
