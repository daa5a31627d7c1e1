//! The order of slices: each tool once per round, in a different order each round, so that drift of
//! the machine favours no tool.

use anyhow::Result;

use super::{results::Results, tools::tool::Tool};
use crate::process;

/// Fixed, so that every run has the same order.
const SEED: u64 = 0x6265_6e63_6821;

/// Calls `measure` for each tool in each round. Returns the results by round and by index of the
/// tool. A tool that fails becomes a row with the error and is left out of later rounds.
pub(crate) fn run<T>(
    benchmark: &'static str,
    tools: &[Tool],
    rounds: usize,
    results: &mut Results,
    mut measure: impl FnMut(&Tool) -> Result<T>,
) -> Vec<Vec<Option<T>>> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut order: Vec<usize> = (0..tools.len()).collect();
    let mut measured = Vec::new();
    for round in 0..rounds {
        process::step(&format!("{benchmark}: round {} of {rounds}", round + 1));
        random.shuffle(&mut order);
        let mut slices: Vec<Option<T>> = tools.iter().map(|_| None).collect();
        order.retain(|at| match measure(&tools[*at]) {
            Ok(slice) => {
                slices[*at] = Some(slice);
                true
            }
            Err(error) => {
                results.failed(benchmark, tools[*at].name, format!("{error:#}"));
                false
            }
        });
        measured.push(slices);
    }
    measured
}
