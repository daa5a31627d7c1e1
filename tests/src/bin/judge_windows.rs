//! Judges simulated experiments as `experiment` judges measured ones, for the simulator in
//! `tests/simulator`.
//!
//! `judge-windows schedule COUNT PAIRS SECONDS` prints so many schedules, one a line: a JSON array of
//! windows, each with whether it has the change and the pause before it, s. `judge-windows judge`
//! reads experiments, one a line, each an array of windows in their order: whether it has the
//! change, the middle of its time (s), its length (s), events, stalls. Prints a line for each: the
//! verdict, the number of windows used, the estimate and its interval.

#![expect(clippy::print_stdout, reason = "its output is what the simulator reads")]

use std::{env, io, time::Duration};

use anyhow::{Context, Result, bail};
use latency_user::{
    compare::units::{self, Unit, UnitCount},
    experiment::{looks::Looks, schedule},
    model::comparison::UnitKind,
};
use serde_json::{Value, json};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["schedule", count, pairs, seconds] => {
            let window = Duration::from_secs_f64(seconds.parse()?);
            for seed in 0..count.parse()? {
                let steps = schedule::steps(seed, pairs.parse()?, window).into_iter();
                let steps = steps.map(|step| json!([step.changed, step.pause.as_secs_f64()]));
                println!("{}", Value::from(steps.collect::<Vec<_>>()));
            }
        }
        ["judge"] => {
            for line in io::stdin().lines() {
                let windows: Vec<Value> = serde_json::from_str(&line?)?;
                let units = windows
                    .iter()
                    .enumerate()
                    .map(|(at, window)| Ok(Unit { pair: Some(at / 2), ..unit(window)? }));
                println!("{}", judge(&units.collect::<Result<Vec<_>>>()?));
            }
        }
        _ => bail!("usage: judge-windows schedule COUNT PAIRS SECONDS | judge-windows judge"),
    }
    Ok(())
}

fn unit(window: &Value) -> Result<Unit> {
    let number = |at: usize| window[at].as_f64().with_context(|| format!("no number {at}"));
    let count = UnitCount { events: number(3)? as u64, stalls: number(4)? as u64 };
    Ok(Unit {
        changed: window[0].as_bool().context("no change")?,
        at_s: number(1)?,
        seconds: number(2)?,
        counts: [("stage=net_rx".to_owned(), count)].into(),
        ..Unit::default()
    })
}

fn judge(all: &[Unit]) -> Value {
    let mut looks = Looks::new(all.len() / 2);
    let mut used = all.len();
    for pair in 1..all.len() / 2 {
        if looks.after_pair(&all[..2 * pair]).is_some() {
            used = 2 * pair;
            break;
        }
    }
    let found = units::test(&all[..used], "stage=net_rx", UnitKind::Window);
    let estimate = found.estimate;
    let verdict = match found.p {
        Some(p) if p < looks.level() => match estimate.ratio {
            Some(ratio) if ratio < 1.0 => "improved",
            _ => "worse",
        },
        _ => "no_difference_shown",
    };
    json!({
        "verdict": verdict, "windows": used,
        "estimate": estimate.ratio, "low": estimate.low,
        "high": estimate.high.is_finite().then_some(estimate.high),
    })
}
