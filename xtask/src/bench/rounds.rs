//! The order of slices: every contender once a round, each round in another order, so that a
//! machine that drifts favours nobody.

use anyhow::Result;

use super::{contenders::Contender, results::Results};
use crate::process;

/// The same order every time.
const SEED: u64 = 0x6265_6e63_6821;

/// Calls `measure` for each contender in each round and returns the rounds, each with what was
/// measured by the contender's place in the list. Whoever fails is a row that says why, and takes
/// no further part.
pub(crate) fn run<T>(
    part: &'static str,
    contenders: &[Contender],
    rounds: usize,
    results: &mut Results,
    mut measure: impl FnMut(&Contender) -> Result<T>,
) -> Vec<Vec<Option<T>>> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    let mut measured = Vec::new();
    for round in 0..rounds {
        process::step(&format!("{part}: round {} of {rounds}", round + 1));
        random.shuffle(&mut order);
        let mut slices: Vec<Option<T>> = contenders.iter().map(|_| None).collect();
        order.retain(|at| match measure(&contenders[*at]) {
            Ok(slice) => {
                slices[*at] = Some(slice);
                true
            }
            Err(error) => {
                results.cannot(part, contenders[*at].name, format!("{error:#}"));
                false
            }
        });
        measured.push(slices);
    }
    measured
}
