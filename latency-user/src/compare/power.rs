//! How much measuring would show a halving.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// Probability with which it would be shown.
const POWER: f64 = 0.8;

/// More units than this are not worth planning.
const MOST: usize = 100_000;

/// Units in all, half of them with the change, that would show a halving, if the logarithm of a
/// unit's rate has this variance; `None`: out of reach.
pub fn units(variance: f64) -> Option<usize> {
    let normal = Normal::new(0.0, 1.0).ok()?;
    let z = normal.inverse_cdf(POWER);
    let shows = |a_side: usize| {
        let error = (2.0 * variance / a_side as f64).sqrt().max(1e-9);
        let freedom = (2 * a_side) as f64 - 3.0;
        let student = StudentsT::new(0.0, 1.0, freedom).map(|student| student.inverse_cdf(0.975));
        student.is_ok_and(|t| 2.0_f64.ln() / error >= t + z)
    };
    let mut high = 4;
    while !shows(high) {
        high *= 2;
        if high > MOST {
            return None;
        }
    }
    let mut low = high / 2;
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if shows(middle) { high = middle } else { low = middle }
    }
    Some(2 * if shows(low.max(4)) { low.max(4) } else { high })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_variance_takes_more_units() {
        // By the normal approximation: 2 * 2 * 0.25 * (1.96 + 0.84)^2 / 0.48 = 16.3, and more by t.
        let found = units(0.25).unwrap();
        assert!((18..=22).contains(&found), "{found}");
        assert!(units(1.0).unwrap() > 3 * found);
        assert_eq!(units(1e9), None);
        assert_eq!(units(0.0), Some(8));
    }
}
