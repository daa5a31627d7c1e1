//! Counts the results of test programs.
//!
//! Owns the format of the summary line of the standard test harness, which libtest-mimic uses too.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// How many of the slowest tests are told.
const SLOWEST: usize = 12;

/// Counts of tests so far, over all programs.
#[derive(Default, Debug)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Reported as ignored because they could not run here.
    pub(crate) skipped: u64,
    /// The slowest tests that ran one after another, the slowest first.
    slowest: Vec<(Duration, String)>,
    /// When the last line came.
    last_line: Option<Instant>,
}

impl Tally {
    /// Adds the counts of another run.
    pub(crate) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.slowest.extend(other.slowest.iter().cloned());
        self.keep_slowest();
    }

    /// The slowest tests, in seconds.
    pub(crate) fn slowest(&self) -> String {
        let tests = self.slowest.iter();
        let texts = tests.map(|(time, name)| format!("{name} {:.0} s", time.as_secs_f64()));
        texts.collect::<Vec<_>>().join(", ")
    }

    /// Notes how long the test of a line took: since the line before.
    fn time(&mut self, line: &str) {
        let now = Instant::now();
        let before = self.last_line.replace(now);
        let name = line.strip_prefix("test ").and_then(|rest| rest.split_whitespace().next());
        if let (Some(name), Some(before)) = (name.filter(|name| name.contains("::")), before) {
            self.slowest.push((now - before, name.to_owned()));
            self.keep_slowest();
        }
    }

    fn keep_slowest(&mut self) {
        self.slowest.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        self.slowest.truncate(SLOWEST);
    }

    /// Adds the counts of `line` if it is a summary line.
    pub(crate) fn line(&mut self, line: &str) {
        self.time(line);
        let Some((_, counts)) = line.trim().split_once("test result: ") else { return };
        // `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s`
        let counts = counts.split_once(". ").map_or(counts, |(_, counts)| counts);
        for count in counts.split(';') {
            let mut words = count.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_lines_add_up_and_other_lines_are_ignored() {
        let mut tally = Tally::default();
        tally.line("test result: ok. 97 passed; 0 failed; 3 ignored; 0 measured; 5 filtered out; finished in 0.00s");
        tally.line("test result: FAILED. 2 passed; 11 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s");
        tally.line("test 13 passed; 7 failed ... ok");
        assert_eq!((tally.passed, tally.failed, tally.skipped), (99, 11, 3));
        assert_eq!(tally.to_string(), "99 passed, 11 failed, 3 skipped");
    }
}
