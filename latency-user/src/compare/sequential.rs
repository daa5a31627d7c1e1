//! When an experiment may end early without making a false verdict more likely.
//!
//! Looking at the windows several times gives chance several tries. Each look therefore gets a
//! level of its own: of 5 % in all, the part `4 - 4 Phi(z / sqrt(t))`, with `z` the quantile of 1 - 5 % / 4,
//! is spent when the fraction `t` of the windows is measured (Lan and DeMets 1983, with the spending
//! function of O'Brien and Fleming on either side), and the level of a look is such that just the part since the last look is spent. The
//! distribution of the looks so far is integrated numerically (Armitage, McPherson and Rowe 1969).
//! P-values of t-tests are compared with these levels (Jennison and Turnbull 2000, chapter 11).

use statrs::distribution::{ContinuousCDF, Normal};

/// Probability of a false verdict in the whole experiment.
pub const LEVEL: f64 = 0.05;

/// Points of the numeric integration.
const POINTS: usize = 161;

/// The level of the last of several looks, at these fractions of the windows, ascending. The last
/// look of an experiment spends what is left: give it the fraction 1.
pub fn level(looks: &[f64]) -> f64 {
    let Ok(normal) = Normal::new(0.0, 1.0) else { return 0.0 };
    let z = normal.inverse_cdf(1.0 - LEVEL / 4.0);
    let spent = |t: f64| 4.0 - 4.0 * normal.cdf(z / t.clamp(1e-6, 1.0).sqrt());
    // The density of the sum of all windows so far, where no look has ended the experiment.
    let mut density: Vec<(f64, f64)> = Vec::new();
    let (mut before, mut level) = (0.0, 0.0);
    for &look in looks {
        let look = look.clamp(before, 1.0);
        let step = (look - before).max(1e-9);
        let to_spend = (spent(look) - if before > 0.0 { spent(before) } else { 0.0 }).max(1e-12);
        // Probability that the sum now lies beyond `limit`, on either side.
        let beyond = |limit: f64| -> f64 {
            let tail = |from: f64| 1.0 - normal.cdf((limit - from) / step.sqrt());
            match density.is_empty() {
                true => 2.0 * tail(0.0),
                false => 2.0 * density.iter().map(|(at, weight)| weight * tail(*at)).sum::<f64>(),
            }
        };
        let (mut low, mut high) = (0.0, 12.0 * look.sqrt());
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if beyond(middle) > to_spend { low = middle } else { high = middle }
        }
        level = 2.0 * (1.0 - normal.cdf(high / look.sqrt()));
        density = next(&density, high, step);
        before = look;
    }
    level
}

/// The density, as weighted points, of sums that stayed within `limit`, one step later.
fn next(density: &[(f64, f64)], limit: f64, step: f64) -> Vec<(f64, f64)> {
    let width = 2.0 * limit / (POINTS - 1) as f64;
    let bell =
        |off: f64| (-off * off / (2.0 * step)).exp() / (2.0 * std::f64::consts::PI * step).sqrt();
    let point = |at: usize| {
        let to = width * at as f64 - limit;
        let height = match density.is_empty() {
            true => bell(to),
            false => density.iter().map(|(from, weight)| weight * bell(to - from)).sum(),
        };
        let ends = if at == 0 || at == POINTS - 1 { 0.5 } else { 1.0 };
        (to, height * width * ends)
    };
    (0..POINTS).map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_the_literature() {
        // Five equal looks, as published; integrals of the multivariate normal distribution (scipy)
        // agree.
        let normal = Normal::new(0.0, 1.0).unwrap();
        let looks = [0.2, 0.4, 0.6, 0.8, 1.0];
        for (n, boundary) in (1..).zip([4.8769, 3.3569, 2.6803, 2.2898, 2.0310]) {
            let expected = 2.0 * (1.0 - normal.cdf(boundary));
            let found = level(&looks[..n]);
            assert!((found / expected - 1.0).abs() < 0.02, "look {n}: {found} for {expected}");
        }
    }

    #[test]
    fn one_look_has_the_whole_level() {
        assert!((level(&[1.0]) - LEVEL).abs() < 1e-4);
    }
}
