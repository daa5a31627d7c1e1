//! The parts of a run that are needed to describe its stalls.

use latency_common::stage::Stage;

use super::naming::Naming;
use crate::model::series::labels::Labels;

/// The names of rows, and the stages that are timed.
pub struct Context<'a> {
    /// Names of rows.
    pub naming: &'a Naming,
    /// Stages that are timed.
    pub stages: &'a [Stage],
}

impl Context<'_> {
    /// Labels of the row with this index, without the CPU.
    pub(super) fn labels(&self, row: u32) -> Labels {
        match self.naming.series(row) {
            Some(row) => Labels::new(&row.id.at, &row.attrs).without_cpu(),
            None => Labels::default(),
        }
    }

    /// Whether `stage` is timed.
    pub(super) fn is_timed(&self, stage: Stage) -> bool {
        self.stages.contains(&stage)
    }
}
