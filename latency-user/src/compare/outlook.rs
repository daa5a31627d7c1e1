//! Whether the windows that are left can still show something.

use statrs::distribution::{ContinuousCDF, Normal};

use super::{
    power, sequential,
    units::{self, Unit},
};
use crate::model::comparison::UnitKind;

/// A chance below this is none.
const HOPELESS: f64 = 0.1;

/// Windows that would show a halving, in all, if those that are left cannot: neither the change as
/// estimated so far nor a halving or doubling has a chance of a tenth. `None`: they can.
///
/// The test statistic is taken for a Brownian motion with the drift that the effect gives it
/// (Lan and Wittes 1988).
pub fn hopeless(units: &[Unit], kind: UnitKind, planned: usize) -> Option<Option<usize>> {
    let normal = Normal::new(0.0, 1.0).ok()?;
    let limit = normal.inverse_cdf(1.0 - sequential::LEVEL / 2.0);
    let part = units.len() as f64 / planned.max(1) as f64;
    if !units::are_enough(units) || part >= 1.0 {
        return None;
    }
    let mut fewest = None;
    for name in units::names(units) {
        let test = units::test(units, name, kind);
        let estimate = test.estimate.ratio?.ln();
        if test.variance <= 0.0 || !estimate.is_finite() {
            return None;
        }
        let error = (4.0 * test.variance / planned as f64).sqrt();
        let now = estimate / (error / part.sqrt());
        let chance = |effect: f64| {
            let mean = now * part.sqrt() + effect / error * (1.0 - part);
            let spread = (1.0 - part).sqrt();
            normal.cdf((-limit - mean) / spread) + 1.0 - normal.cdf((limit - mean) / spread)
        };
        let halving = 2.0_f64.ln();
        if [estimate, halving, -halving].into_iter().any(|effect| chance(effect) >= HOPELESS) {
            return None;
        }
        let needed = power::units(test.variance);
        fewest = match fewest {
            None => Some(needed),
            Some(known) => Some(known.min(needed).or(known).or(needed)),
        };
    }
    fewest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every other one with the change.
    fn units(stalls: &[u64]) -> Vec<Unit> {
        let windows = stalls.iter().enumerate().map(|(at, stalls)| (at % 2 == 1, *stalls));
        units::tests::units(&windows.collect::<Vec<_>>())
    }

    #[test]
    fn wild_windows_are_given_up_and_others_are_not() {
        let wild = units(&[1, 900, 400, 2, 3, 800, 700, 1, 600, 900]);
        let needed = hopeless(&wild, UnitKind::Window, 20).unwrap();
        assert!(needed.unwrap() > 100, "{needed:?}");
        let steady = units(&[20, 21, 19, 22, 20, 18, 23, 20, 21, 19]);
        assert_eq!(hopeless(&steady, UnitKind::Window, 20), None);
        assert_eq!(hopeless(&units(&[0; 10]), UnitKind::Window, 20), None);
    }
}
