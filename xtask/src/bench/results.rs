//! What was measured: rows for the table, figures for the goals, and checks.

use super::{figures::Figure, goals::Goal};

/// One line of the table.
pub(crate) struct Row {
    /// The part of the benchmark.
    pub(crate) part: &'static str,
    /// Who or what was measured.
    pub(crate) name: String,
    /// What of it.
    pub(crate) what: &'static str,
    /// The figure, or why there is none.
    pub(crate) figure: Result<Figure, String>,
}

/// Something that must hold however noisy the machine is.
pub(crate) struct Check {
    pub(crate) what: String,
    /// Why it does not hold.
    pub(crate) failure: Option<String>,
}

/// Everything that the parts have found so far.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    pub(crate) goals: Vec<(&'static Goal, Figure)>,
    pub(crate) checks: Vec<Check>,
}

impl Results {
    /// Adds a figure; of no slices there is none.
    pub(crate) fn row(
        &mut self,
        part: &'static str,
        name: impl Into<String>,
        what: &'static str,
        figure: Option<Figure>,
    ) {
        let figure = figure.ok_or_else(|| "no slice of it was measured".to_owned());
        self.rows.push(Row { part, name: name.into(), what, figure });
    }

    /// Adds a row that could not be measured.
    pub(crate) fn cannot(&mut self, part: &'static str, name: impl Into<String>, error: String) {
        self.rows.push(Row { part, name: name.into(), what: "", figure: Err(error) });
    }

    pub(crate) fn goal(&mut self, goal: &'static Goal, figure: Option<Figure>) {
        self.goals.extend(figure.map(|figure| (goal, figure)));
    }

    /// Notes whether `holds`; `found` is asked when it does not.
    pub(crate) fn check(
        &mut self,
        what: impl Into<String>,
        holds: bool,
        found: impl FnOnce() -> String,
    ) {
        let failure = (!holds).then(found);
        self.checks.push(Check { what: what.into(), failure });
    }

    pub(crate) fn figure_of(&self, goal: &Goal) -> Option<&Figure> {
        self.goals.iter().find(|(of, _)| of.key == goal.key).map(|(_, figure)| figure)
    }

    pub(crate) fn failed_checks(&self) -> impl Iterator<Item = (&str, &str)> {
        self.checks
            .iter()
            .filter_map(|check| Some((check.what.as_str(), check.failure.as_deref()?)))
    }
}
