//! Slices: requested by lines on standard input, answered by lines of JSON on standard output.

use std::{
    io::{BufRead, stdin},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Sleep between batches of a paced load: about the longest delay of an event.
const PAUSE: Duration = Duration::from_micros(200);

/// Events between two clock reads in a load that is not paced.
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
    /// Events per second; `None`: as many as possible.
    rate: Option<u64>,
}

/// Serves slices until standard input ends.
///
/// # Errors
///
/// When a line is not a slice, or the load fails.
#[expect(clippy::print_stdout, reason = "the benchmark reads the outcome there")]
pub fn serve(load: &mut impl Load) -> Result<()> {
    for line in stdin().lock().lines() {
        let slice = parse(&line?)?;
        let (started, cpu_started) = (Instant::now(), cpu_time()?);
        run(load, &slice)?;
        let mut outcome = load.outcome()?;
        outcome["seconds"] = started.elapsed().as_secs_f64().into();
        outcome["cpu_seconds"] = (cpu_time()? - cpu_started).as_secs_f64().into();
        println!("{outcome}");
    }
    Ok(())
}

/// CPU time of this thread.
fn cpu_time() -> Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call overwrites the timespec.
    if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) } != 0 {
        return Err(std::io::Error::last_os_error()).context("read the CPU time");
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
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
        thread::sleep(PAUSE);
    }
}

/// Events that a load of `rate` per second must have sent after `elapsed`.
fn due(rate: u64, elapsed: Duration) -> u64 {
    (u128::from(rate) * elapsed.as_nanos() / 1_000_000_000) as u64
}

fn parse(line: &str) -> Result<Slice> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let number =
        |word: &str| word.parse().with_context(|| format!("{word:?} is not a number in {line:?}"));
    let (milliseconds, rate) = match words[..] {
        [milliseconds] => (number(milliseconds)?, None),
        [milliseconds, rate] => (number(milliseconds)?, Some(number(rate)?)),
        _ => bail!("expected MILLISECONDS [EVENTS_PER_SECOND]: {line:?}"),
    };
    Ok(Slice { duration: Duration::from_millis(milliseconds), rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_parse_as_slices() {
        let slice = Slice { duration: Duration::from_millis(250), rate: Some(1000) };
        assert_eq!(parse("250 1000").unwrap(), slice);
        assert_eq!(parse("250").unwrap().rate, None);
        assert!(parse("soon").unwrap_err().to_string().contains("\"soon\""));
    }

    #[test]
    fn pacing_does_not_drift() {
        let rate = 7_919;
        let mut sent = 0;
        for millisecond in 1..=60_000 {
            sent += due(rate, Duration::from_millis(millisecond)) - sent;
        }
        assert_eq!(sent, 60 * rate);
    }
}
