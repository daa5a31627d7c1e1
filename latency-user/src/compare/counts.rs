//! Stalls and their exposure, part by part or unit by unit, and the estimate of a ratio of rates.

use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::model::comparison::Approach;

/// Stalls and their exposure (seconds, or events) in each part of one side.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) stalls: Vec<f64>,
    pub(super) exposure: Vec<f64>,
}

/// A rate after divided by the rate before, with its 95 % interval.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    /// The ratio; `None`: the rate before is 0.
    pub ratio: Option<f64>,
    /// Lower end of the interval.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// The p-value; `None`: it cannot be computed.
    pub p: Option<f64>,
    /// How it was computed.
    pub approach: Approach,
}

impl Counts {
    pub(super) fn sum(&self) -> f64 {
        self.stalls.iter().sum()
    }

    pub(super) fn all_exposure(&self) -> f64 {
        self.exposure.iter().sum()
    }
}

impl Estimate {
    /// Nothing is known.
    pub(super) const NONE: Self =
        Self { ratio: None, low: 0.0, high: f64::INFINITY, p: None, approach: Approach::None };

    /// From the logarithm of a ratio with its standard error and degrees of freedom.
    pub(super) fn of_log(log: f64, error: f64, freedom: f64, approach: Approach) -> Self {
        let Ok(student) = StudentsT::new(0.0, 1.0, freedom.max(1.0)) else { return Self::NONE };
        let error = error.max(1e-9);
        let reach = student.inverse_cdf(0.975) * error;
        Self {
            ratio: Some(log.exp()),
            low: (log - reach).exp(),
            high: (log + reach).exp(),
            p: Some(2.0 * student.cdf(-log.abs() / error)),
            approach,
        }
    }

    /// The less certain one of two tests of the same question.
    pub(super) fn or_weaker(self, other: Self) -> Self {
        match (self.p, other.p) {
            (Some(a), Some(b)) if b > a => Self {
                p: Some(b),
                low: self.low.min(other.low),
                high: self.high.max(other.high),
                ..self
            },
            _ => self,
        }
    }
}
