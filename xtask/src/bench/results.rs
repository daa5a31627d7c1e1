//! Results: rows of the table, figures of the goals, and checks.

use super::{figures::Figure, goals::Goal};

/// One line of the table.
pub(crate) struct Row {
    /// Title of the benchmark.
    pub(crate) benchmark: &'static str,
    /// The tool or setup that was measured.
    pub(crate) name: String,
    /// The quantity and its unit.
    pub(crate) what: &'static str,
    /// The figure, or the error.
    pub(crate) figure: Result<Figure, String>,
}

/// A condition that must hold however noisy the machine is.
pub(crate) struct Check {
    pub(crate) what: String,
    /// Why it does not hold.
    pub(crate) failure: Option<String>,
}

/// All results so far.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    pub(crate) goals: Vec<(&'static Goal, Figure)>,
    pub(crate) checks: Vec<Check>,
}

impl Results {
    /// Adds a row. `figure` is `None` if no slice was measured.
    pub(crate) fn row(
        &mut self,
        benchmark: &'static str,
        name: impl Into<String>,
        what: &'static str,
        figure: Option<Figure>,
    ) {
        let figure = figure.ok_or_else(|| "no slice was measured".to_owned());
        self.rows.push(Row { benchmark, name: name.into(), what, figure });
    }

    /// Adds a row that could not be measured.
    pub(crate) fn failed(
        &mut self,
        benchmark: &'static str,
        name: impl Into<String>,
        error: String,
    ) {
        self.rows.push(Row { benchmark, name: name.into(), what: "", figure: Err(error) });
    }

    pub(crate) fn goal(&mut self, goal: &'static Goal, figure: Option<Figure>) {
        self.goals.extend(figure.map(|figure| (goal, figure)));
    }

    /// Adds a check. `failure` is called unless `holds`.
    pub(crate) fn check(
        &mut self,
        what: impl Into<String>,
        holds: bool,
        failure: impl FnOnce() -> String,
    ) {
        let failure = (!holds).then(failure);
        self.checks.push(Check { what: what.into(), failure });
    }

    pub(crate) fn figure_of(&self, goal: &Goal) -> Option<&Figure> {
        self.goals.iter().find(|(known, _)| known.key == goal.key).map(|(_, figure)| figure)
    }

    pub(crate) fn failed_checks(&self) -> impl Iterator<Item = (&str, &str)> {
        self.checks
            .iter()
            .filter_map(|check| Some((check.what.as_str(), check.failure.as_deref()?)))
    }
}
