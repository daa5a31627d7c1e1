//! Counts of a recording, part by part.

/// Events and their exposure (seconds, or events), part by part.
pub(super) struct Counts {
    pub(super) events: Vec<f64>,
    pub(super) exposure: Vec<f64>,
}
