//! Simulated experiments.

mod load_drift;
