//! When an experiment looks at its windows, and what it concludes from a look.

use crate::{
    compare::{self, outlook, sequential, units::Unit},
    model::{comparison::UnitKind, note::Note},
};

/// Pairs before the first look.
const FIRST: usize = 4;

/// Pairs from one look to the next.
const STEP: usize = 2;

/// The looks at an experiment.
#[derive(Clone, Debug)]
pub struct Looks {
    planned: usize,
    /// The fractions of the windows at which it looked.
    at: Vec<f64>,
    is_over: bool,
}

/// Why an experiment ends at a look.
#[derive(Clone, Debug, PartialEq)]
pub enum Ends {
    /// The windows are clear.
    Clear,
    /// They cannot become clear.
    Hopeless(Note),
}

impl Looks {
    /// Looks at an experiment of so many pairs of windows.
    pub fn new(planned: usize) -> Self {
        Self { planned, at: Vec::new(), is_over: false }
    }

    /// Looks at the windows if it is time to, after a pair that is not the last one.
    pub fn after_pair(&mut self, units: &[Unit]) -> Option<Ends> {
        let pairs = units.len() / 2;
        if pairs < FIRST || !(pairs - FIRST).is_multiple_of(STEP) || pairs >= self.planned {
            return None;
        }
        self.at.push(pairs as f64 / self.planned as f64);
        if compare::clear(units, UnitKind::Window, sequential::level(&self.at)) {
            self.is_over = true;
            return Some(Ends::Clear);
        }
        if 2 * pairs < self.planned {
            return None;
        }
        let windows = outlook::hopeless(units, UnitKind::Window, 2 * self.planned)?;
        self.is_over = true;
        let windows = windows.map(|windows| windows as u64);
        Some(Ends::Hopeless(Note::CannotBecomeClear { windows }))
    }

    /// The significance level of the conclusion: that of the look that ended the experiment, or of a
    /// last one after all windows.
    pub fn level(&self) -> f64 {
        let mut at = self.at.clone();
        if !self.is_over {
            at.push(1.0);
        }
        sequential::level(&at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::units::UnitCount;

    fn units(pairs: usize, with: u64) -> Vec<Unit> {
        let unit = |at: usize| Unit {
            changed: at % 2 == 1,
            at_s: 12.0 * at as f64,
            seconds: 10.0,
            counts: [(
                "x".to_owned(),
                UnitCount { events: 1000, stalls: if at % 2 == 1 { with } else { 30 + at as u64 } },
            )]
            .into(),
            ..Unit::default()
        };
        (0..2 * pairs).map(unit).collect()
    }

    #[test]
    fn clear_windows_end_it_at_the_first_look() {
        let mut looks = Looks::new(10);
        assert_eq!(looks.after_pair(&units(3, 1)), None);
        assert_eq!(looks.after_pair(&units(4, 1)), Some(Ends::Clear));
        assert!(looks.level() < 0.01, "{}", looks.level());
    }

    #[test]
    fn without_an_early_end_most_of_the_level_is_left() {
        let mut looks = Looks::new(10);
        for pairs in 1..10 {
            assert_eq!(looks.after_pair(&units(pairs, 32)), None);
        }
        assert!((0.03..0.05).contains(&looks.level()), "{}", looks.level());
        assert!((Looks::new(3).level() - 0.05).abs() < 1e-4);
    }
}
