//! Judges captured hosts with every rule. Needs no root.

// Always built for tests; the attribute tells clippy that these are test helpers.
#[cfg(test)]
mod captured;
#[cfg(test)]
mod cost;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod remedies;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod trials;
