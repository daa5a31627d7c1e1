//! The daemon: traces all the time, keeps the last minutes, and says what it sees.
//!
//! The measurement runs on one thread, with one [`sink`] that brings everything else up to date;
//! another thread answers HTTP ([`http`]) and the control socket ([`control`]); a third one writes
//! recordings ([`dump`]). They share [`shared::Shared`]. Nothing that a client does or leaves undone
//! is waited for.

pub mod client;
pub mod config;
pub mod control;
pub mod dump;
pub mod endpoint;
pub mod http;
pub mod metrics;
pub mod push;
pub mod request;
pub mod ring;
pub mod shared;
pub mod sink;
pub mod trigger;
pub mod window;
