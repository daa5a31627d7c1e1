//! Captured hosts, each judged by every rule. No root needed.

mod captured;
mod cost;
mod fuzz;
mod rules;
