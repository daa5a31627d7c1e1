//! Captured hosts, each judged by every rule. No root needed.

// It is built for tests only; the attribute tells clippy that these are test helpers.
#[cfg(test)]
mod captured;
#[cfg(test)]
mod cost;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod snapshots;
