//! Experiments: a setting is changed, measured against the state before, and put back.
//!
//! Owns the tunables ([`tunable`]), access to their values ([`knob`], [`netns`]), the guarantee
//! that they are put back ([`journal`], [`watchdog`], [`change`]), the measurement of a window
//! ([`window`], [`side`], [`guards`]), the rules that end it early ([`abort`]), and the order of
//! windows ([`rounds`]). `compare` decides whether the change helped. Prints nothing: the caller
//! passes a callback for progress.

pub mod abort;
pub mod change;
pub mod guards;
pub mod journal;
pub mod knob;
pub mod netns;
pub mod rounds;
pub mod side;
#[cfg(test)]
mod tests;
pub mod tunable;
pub mod watchdog;
pub mod window;
