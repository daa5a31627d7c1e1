//! Slices: asked for by lines on standard input, answered by lines of JSON on standard output.

use std::{
    io::{BufRead, stdin},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The longest that an event waits for its turn in a paced load: a sleep is about that long.
const BREATH: Duration = Duration::from_micros(200);

/// Events between two looks at the clock, of a load that is not paced.
const UNPACED: u64 = 64;

/// A load that can be switched on for a while.
pub trait Load {
    /// Sends `events` events.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn send(&mut self, events: u64) -> Result<()>;

    /// What happened since the last call, as a JSON object.
    ///
    /// # Errors
    ///
    /// When it is unknown.
    fn outcome(&mut self) -> Result<Value>;
}

/// One slice.
#[derive(Debug, PartialEq, Eq)]
struct Slice {
    duration: Duration,
    /// Events in a second; `None`: as many as the machine can make.
    rate: Option<u64>,
}

/// Serves slices until standard input ends.
///
/// # Errors
///
/// When a line is no slice, or the load fails.
#[expect(clippy::print_stdout, reason = "the benchmark reads the outcome there")]
pub fn serve(load: &mut impl Load) -> Result<()> {
    for line in stdin().lock().lines() {
        let slice = parse(&line?)?;
        let started = Instant::now();
        run(load, &slice)?;
        let mut outcome = load.outcome()?;
        outcome["seconds"] = started.elapsed().as_secs_f64().into();
        println!("{outcome}");
    }
    Ok(())
}

fn run(load: &mut impl Load, slice: &Slice) -> Result<()> {
    let started = Instant::now();
    let mut sent = 0;
    loop {
        let elapsed = started.elapsed();
        if elapsed >= slice.duration {
            return Ok(());
        }
        let Some(rate) = slice.rate else {
            load.send(UNPACED)?;
            continue;
        };
        let due = due(rate, elapsed) - sent;
        load.send(due)?;
        sent += due;
        thread::sleep(BREATH);
    }
}

/// Events that a load of `rate` a second has sent after `elapsed`.
fn due(rate: u64, elapsed: Duration) -> u64 {
    (u128::from(rate) * elapsed.as_nanos() / 1_000_000_000) as u64
}

fn parse(line: &str) -> Result<Slice> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let number =
        |word: &str| word.parse().with_context(|| format!("{word:?} is no number in {line:?}"));
    let (milliseconds, rate) = match words[..] {
        [milliseconds] => (number(milliseconds)?, None),
        [milliseconds, rate] => (number(milliseconds)?, Some(number(rate)?)),
        _ => bail!("expected milliseconds and perhaps events per second: {line:?}"),
    };
    Ok(Slice { duration: Duration::from_millis(milliseconds), rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_slices() {
        let slice = Slice { duration: Duration::from_millis(250), rate: Some(1000) };
        assert_eq!(parse("250 1000").unwrap(), slice);
        assert_eq!(parse("250").unwrap().rate, None);
        assert!(parse("soon").unwrap_err().to_string().contains("\"soon\""));
    }

    #[test]
    fn a_pace_is_kept_over_any_number_of_looks() {
        let rate = 7_919;
        let mut sent = 0;
        for millisecond in 1..=60_000 {
            sent += due(rate, Duration::from_millis(millisecond)) - sent;
        }
        assert_eq!(sent, 60 * rate);
    }
}
