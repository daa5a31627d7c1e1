//! Experiments: one setting is changed, measured against what was before, and put back.
//!
//! Owns what may be changed ([`tunable`]), where it stands ([`knob`], [`netns`]), that it is put
//! back whatever happens ([`journal`], [`watchdog`], [`change`]), what is measured of a window
//! ([`window`], [`side`], [`guards`]), when one ends early ([`abort`]), and their order ([`rounds`]).
//! Whether it helped is `compare`'s to say. Prints nothing: who runs an experiment hands over
//! what is told of its progress.

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
