//! What an experiment would take: windows without any change, and how much they differ.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Result;

use super::{abort::Stretches, schedule, window::WindowConfig};
use crate::{
    compare::{self, power, units::Unit},
    model::experiment::{ExperimentPlan, Role, WindowSummary},
    recording::loaded::LoadedRecording,
};

/// Windows that are measured.
pub const WINDOWS: u32 = 8;

/// Measures windows and plans. `report` is called with each.
///
/// # Errors
///
/// As [`WindowConfig::measure`].
pub fn run(
    config: &WindowConfig,
    settle: Duration,
    output: &Path,
    stop: &AtomicBool,
    report: &mut dyn FnMut(u32, Option<&WindowSummary>),
) -> Result<ExperimentPlan> {
    let (mut windows, mut units) = (Vec::new(), Vec::new());
    let mut stretches = Stretches::default();
    for at in 1..=WINDOWS {
        report(at, None);
        let path = output.join(format!("window-{at}-before.hlog"));
        let mut is_over = || stop.load(Ordering::Relaxed);
        let window = config.measure(&path, Role::Unchanged, None, &mut stretches, &mut is_over)?;
        report(at, Some(&window.summary));
        units.push(compare::unit_of(&LoadedRecording::read(&path)?, false));
        windows.push(window.summary);
    }
    let (stage, stalls_per_window, variance) = usual(&units);
    let windows_for_halving = stage.as_ref().and_then(|_| power::units(variance));
    let duration_s = windows_for_halving.map(|windows| {
        let pairs = u32::try_from(windows.div_ceil(2)).unwrap_or(u32::MAX);
        schedule::duration(pairs, config.length, settle).as_secs_f64()
    });
    Ok(ExperimentPlan {
        windows,
        stage,
        stalls_per_window,
        variation: variance.sqrt(),
        windows_for_halving,
        duration_s,
    })
}

/// The stage with the most stalls, their number a window, and the variance of the logarithm of their
/// rate.
fn usual(units: &[Unit]) -> (Option<String>, f64, f64) {
    let sum = |name: &str| -> u64 {
        units.iter().filter_map(|unit| unit.counts.get(name)).map(|count| count.stalls).sum()
    };
    let names = units.iter().flat_map(|unit| unit.counts.keys());
    let Some(name) = names.max_by_key(|name| sum(name)).filter(|name| sum(name) > 0) else {
        return (None, 0.0, 0.0);
    };
    let log = |unit: &Unit| {
        let count = unit.counts.get(name).copied().unwrap_or_default();
        ((count.stalls as f64 + 0.5) / (count.events.max(1) as f64)).ln()
    };
    let logs: Vec<f64> = units.iter().map(log).collect();
    let per_window = sum(name) as f64 / units.len() as f64;
    (Some(name.clone()), per_window, compare::variance(&logs).max(1.0 / per_window.max(0.5)))
}
