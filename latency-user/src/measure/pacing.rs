//! When a measurement ends, and why.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use tokio::{sync, time::sleep};

use crate::model::note::Note;

/// How often it is checked whether a measurement is over.
const FLAG_POLL: Duration = Duration::from_millis(10);

/// Why a measurement ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Stop {
    /// A signal, or another event that the caller waited for.
    Signal,
    /// Its duration has elapsed.
    Elapsed,
    /// The traced command has ended.
    Command,
    /// A sink aborted it because of what was measured.
    Aborted(Note),
    /// The reader of its output is gone.
    Closed,
    /// All stages were disabled.
    NothingTimed,
    /// It is to be started anew.
    Restart,
}

/// What ends a measurement.
pub struct Ends<S> {
    /// Maximum duration; `None`: no limit.
    pub duration: Option<Duration>,
    /// Ends the measurement when ready.
    pub signal: S,
    /// Ends the current interval at once; `None`: nothing does.
    pub early: Option<Arc<sync::Notify>>,
    /// Whether to continue until `signal` is ready when `--max-overhead` has disabled all stages.
    pub outlast_stages: bool,
}

/// Becomes ready when `is_over` says so, for example because a signal arrived.
///
/// # Errors
///
/// Never; the type matches that of other signals.
pub async fn until(is_over: &mut dyn FnMut() -> bool) -> Result<Stop> {
    while !is_over() {
        sleep(FLAG_POLL).await;
    }
    Ok(Stop::Signal)
}
