//! CPU time of user space for one snapshot a second on machines of other sizes. Their rows are
//! simulated in real map memory and processed by the tracer's own code.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    bench::{built::Built, figures, goals, plan::Plan, results::Results},
    process,
};

const BENCHMARK: &str = "User space: snapshots of simulated rows, one a second";

const CPUS: [u32; 3] = [2, 64, 256];
const QUEUES: u32 = 64;
/// CPUs of the machine for which the goal is set.
const LARGEST: u32 = 256;

pub(crate) fn run(built: &Built, plan: &Plan, results: &mut Results) -> Result<()> {
    for cpus in CPUS {
        let (snapshots, pause) = if plan.quick { (1, 10) } else { (10, 1000) };
        let mut command = Command::new(&built.rows);
        command.arg(&built.object);
        command.args([cpus, QUEUES, snapshots, pause].map(|number| number.to_string()));
        process::step(&format!("{BENCHMARK}: {cpus} CPUs"));
        let text = process::capture(&mut command)?;
        let outcome: Value =
            serde_json::from_str(&text).context("cannot parse the output of bench-rows")?;
        let name = format!("{cpus} CPUs x {QUEUES} queues");
        let steps = ["to_interval", "to_table", "to_recording"].map(|step| percent(&outcome, step));
        for (what, values) in [
            ("% core, snapshot", &steps[0]),
            ("% core, table", &steps[1]),
            ("% core, record", &steps[2]),
        ] {
            results.row(BENCHMARK, &name, what, figures::of(values));
        }
        let active = outcome["active"].as_u64().unwrap_or(0);
        results.check(format!("{name}: rows were read"), active > 0, || "none".to_owned());
        if cpus == LARGEST {
            // `trace` without options takes snapshots and prints a table.
            let both: Vec<f64> = steps[0].iter().zip(&steps[1]).map(|(a, b)| a + b).collect();
            results.row(BENCHMARK, &name, "% core, as trace", figures::of(&both));
            results.goal(&goals::USER_CPU, figures::of(&both));
        }
    }
    Ok(())
}

/// Per cent of one core, at one snapshot a second.
fn percent(outcome: &Value, step: &str) -> Vec<f64> {
    let seconds = outcome[step].as_array().into_iter().flatten().filter_map(Value::as_f64);
    seconds.map(|seconds| seconds * 100.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_millisecond_a_second_is_a_tenth_of_a_per_cent() {
        let outcome = serde_json::json!({ "to_table": [0.001] });
        assert_eq!(percent(&outcome, "to_table"), [0.1]);
    }
}
