//! The results as a table and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{
    figures::Figure,
    goals::{self, Bound, Goal},
    machine::Machine,
    results::Results,
};

/// Width of the table in columns.
const WIDTH: usize = 80;
/// Width of a row's name and of its quantity.
const NAME: usize = 27;
const WHAT: usize = 16;

/// The results with what is needed to print them.
pub(crate) struct Report<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) results: &'a Results,
    /// Whether to judge the goals; one slice of each tool is not enough for that.
    pub(crate) judged: bool,
}

impl Report<'_> {
    /// The table; goals first.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from("Benchmark of latency-user\n");
        text += &self.machine.text();
        if self.judged {
            text += "\nGoals (medians, 95 % intervals)\n";
            for goal in goals::ALL {
                self.goal(goal, &mut text);
            }
        }
        let mut benchmark = "";
        for row in &self.results.rows {
            if row.benchmark != benchmark {
                benchmark = row.benchmark;
                let _ = write!(text, "\n{benchmark}\n{:NAME$} {:WHAT$}", "", "");
                let _ = writeln!(text, " {:>10} {:>21}", "median", "95% interval");
            }
            match &row.figure {
                Ok(figure) => {
                    let interval = format!("{} to {}", number(figure.low), number(figure.high));
                    let _ = writeln!(
                        text,
                        "{:NAME$} {:WHAT$} {:>10} {interval:>21}",
                        row.name,
                        row.what,
                        number(figure.median)
                    );
                }
                Err(error) => wrap(&mut text, &format!("{}: {error}", row.name), "  "),
            }
        }
        let failed: Vec<_> = self.results.failed_checks().collect();
        let _ = writeln!(
            text,
            "\nChecks: {} held, {} failed",
            self.results.checks.len() - failed.len(),
            failed.len()
        );
        for (what, why) in failed {
            wrap(&mut text, &format!("FAILED {what}: {why}"), "  ");
        }
        text
    }

    fn goal(&self, goal: &Goal, text: &mut String) {
        let figure = self.results.figure_of(goal);
        let verdict = goals::judge(goal, figure).name();
        let bound = if goal.bound == Bound::AtMost { "at most" } else { "at least" };
        let unit = if goal.unit.is_empty() { String::new() } else { format!(" {}", goal.unit) };
        wrap(text, &format!("{verdict}: {}", goal.text), "    ");
        if let Some(Figure { median, low, high, .. }) = figure {
            let (median, low, high) = (number(*median), number(*low), number(*high));
            let _ = writeln!(
                text,
                "    {median}{unit} ({low} to {high}), wanted {bound} {}{unit}",
                goal.limit
            );
        }
    }

    /// Whether a goal was measured and missed.
    pub(crate) fn misses_a_goal(&self) -> bool {
        let missed = |goal: &&Goal| {
            goals::judge(goal, self.results.figure_of(goal)) == goals::Verdict::Missed
        };
        self.judged && goals::ALL.iter().any(missed)
    }

    /// All results, as one object.
    pub(crate) fn json(&self) -> Value {
        let figure = |figure: &Figure| {
            json!({ "median": figure.median, "low": figure.low, "high": figure.high,
                    "slices": figure.slices })
        };
        let goals: Vec<_> = goals::ALL
            .iter()
            .map(|goal| {
                let found = self.results.figure_of(goal);
                json!({ "key": goal.key, "text": goal.text, "limit": goal.limit,
                        "side": if goal.bound == Bound::AtMost { "at_most" } else { "at_least" },
                        "unit": goal.unit, "figure": found.map(figure),
                        "verdict": self.judged.then(|| goals::judge(goal, found).name()) })
            })
            .collect();
        let rows: Vec<_> = self
            .results
            .rows
            .iter()
            .map(|row| {
                json!({ "part": row.benchmark, "name": row.name, "what": row.what,
                        "figure": row.figure.as_ref().ok().map(figure),
                        "error": row.figure.as_ref().err() })
            })
            .collect();
        let checks: Vec<_> = self
            .results
            .checks
            .iter()
            .map(|check| json!({ "what": check.what, "failure": check.failure }))
            .collect();
        json!({ "machine": self.machine.json(), "goals": goals, "rows": rows, "checks": checks })
    }
}

/// Three significant digits, or all digits of the integer part if it has more.
fn number(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        _ if size >= 100.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// Adds `line`, wrapped at the width of the table.
fn wrap(text: &mut String, line: &str, indent: &str) {
    let mut width = 0;
    for word in line.split_whitespace() {
        if width > 0 && width + 1 + word.chars().count() > WIDTH {
            text.push('\n');
            text.push_str(indent);
            width = indent.len();
        } else if width > 0 {
            text.push(' ');
            width += 1;
        }
        text.push_str(word);
        width += word.chars().count();
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let mut results = Results::default();
        let figure = |median| Some(Figure { median, low: median, high: median * 1.1, slices: 5 });
        results.row("Per event", "ours, cycle", "ns a cycle", figure(312.4));
        results.row(
            "Per event",
            "a name of twenty-six chars",
            "of softirqs",
            figure(123_456_789.0),
        );
        results.failed("Per event", "bpftrace script", "it ended ".repeat(20));
        results.goal(&goals::CYCLE_TO_SOFTIRQS, figure(1.4));
        results.check("something", false, || "it does not hold ".repeat(9));
        results
    }

    #[test]
    fn the_table_fits_a_terminal_and_leads_with_the_goals() {
        let machine = Machine::detect();
        let table = Report { machine: &machine, results: &results(), judged: true }.table();
        let wide = table.lines().skip(3).find(|line| line.chars().count() > WIDTH);
        assert_eq!(wide, None, "{table}");
        assert!(table.find("MISSED: a complete NET_RX cycle") < table.find("Per event"));
        assert!(table.contains("1.40 (1.40 to 1.54), wanted at most 1.2"), "{table}");
        assert!(table.contains("Checks: 0 held, 1 failed"), "{table}");
    }

    #[test]
    fn json_has_the_errors_too() {
        let machine = Machine::detect();
        let json = Report { machine: &machine, results: &results(), judged: false }.json();
        assert_eq!(json["rows"][0]["figure"]["slices"], 5);
        assert!(json["rows"][2]["error"].as_str().unwrap().starts_with("it ended"));
        assert_eq!(json["goals"][0]["verdict"], Value::Null);
    }
}
