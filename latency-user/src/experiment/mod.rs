//! Experiments: a setting is changed, measured against the state before, and put back.
//!
//! Owns the tunables ([`tunable`]), access to their values ([`knob`], [`netns`]), the guarantee
//! that they are put back ([`journal`], [`watchdog`], [`change`], `safeguards`), the measurement of
//! a window ([`window`], [`side`], [`guards`]), the rules that end it early ([`abort`]), the order of
//! windows ([`schedule`]), when they are enough ([`looks`]) and their course ([`rounds`]), and the
//! plan of an experiment ([`mod@plan`]). `compare` decides whether the change helped. Prints nothing:
//! the caller passes a callback for progress.

pub mod abort;
pub mod change;
pub mod guards;
pub mod journal;
pub mod knob;
pub mod looks;
mod neighbours;
pub mod netns;
pub mod plan;
pub mod rounds;
mod safeguards;
pub mod schedule;
pub mod side;
pub mod tunable;
pub mod watchdog;
pub mod window;
