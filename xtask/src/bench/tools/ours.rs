//! latency-user itself.

use serde_json::Value;

use super::tool::{LATENCY_USER, Tool, words};
use crate::bench::{built::Built, tracer::Output};

/// Only rx_wait, net_rx and napi_poll: all can be timed by raw tracepoints on any kernel.
pub(crate) const CYCLE: &str = "ours, cycle";
/// With default options.
pub(crate) const EVERYTHING: &str = "ours, default";
/// The same with the sampling clock of stalls on all CPUs.
const ALWAYS_SAMPLED: &str = "ours, clock always";
/// The same without the stack sampler.
pub(crate) const WITHOUT_SAMPLER: &str = "ours, no sampler";

/// Only net_rx, as `softirqs`.
pub(crate) const STAGE: &str = "ours, net_rx";

const STAGES: &str = "--stages rx_wait,net_rx,napi_poll --sample-hz 0";

pub(crate) fn cycle(built: &Built) -> Tool {
    cycle_with(built, "")
}

pub(crate) fn stage(built: &Built) -> Tool {
    tool(built, STAGE, "--stages net_rx --sample-hz 0 --probes tracepoint")
}

/// Like [`cycle`], with additional arguments.
pub(crate) fn cycle_with(built: &Built, arguments: &str) -> Tool {
    tool(built, CYCLE, &format!("{STAGES} --probes tracepoint {arguments}"))
}

pub(crate) fn everything(built: &Built) -> Tool {
    tool(built, EVERYTHING, "")
}

pub(crate) fn always_sampled(built: &Built) -> Tool {
    tool(built, ALWAYS_SAMPLED, "--sample-when always")
}

pub(crate) fn without_sampler(built: &Built) -> Tool {
    tool(built, WITHOUT_SAMPLER, "--sample-hz 0")
}

/// net_rx and napi_poll by one probe method.
pub(crate) fn by(built: &Built, method: &str) -> Tool {
    let name = match method {
        "fentry" => "ours, fentry",
        "kprobe" => "ours, kprobe",
        _ => "ours, tracepoint",
    };
    let arguments = format!("--stages net_rx,napi_poll --sample-hz 0 --probes {method}");
    tool(built, name, &arguments)
}

/// With other arguments, under another name.
pub(crate) fn tool(built: &Built, name: &'static str, arguments: &str) -> Tool {
    Tool {
        name,
        program: Some(built.latency_user.clone()),
        arguments: words(&format!("trace --format json {arguments}")),
        package: LATENCY_USER,
        count: |output| net_rx(&summary(output)?),
    }
}

/// The summary, which is the last line that it printed.
pub(crate) fn summary(output: &Output) -> Option<Value> {
    let summary: Value = serde_json::from_str(output.stdout.lines().next_back()?).ok()?;
    (summary["kind"] == "summary").then_some(summary)
}

/// Runs of NET_RX.
pub(crate) fn net_rx(summary: &Value) -> Option<u64> {
    sum(summary, "net_rx", "count")
}

/// Packets that NAPI polls processed; `None`: they were not timed.
pub(crate) fn packets(summary: &Value) -> Option<u64> {
    let mut probes = summary["run"]["probes"].as_array()?.iter();
    let is_timed = probes.any(|probe| probe["stage"] == "napi_poll");
    is_timed.then(|| sum(summary, "napi_poll", "packets"))?
}

/// Runs of NET_RX at or above the threshold.
pub(crate) fn stalls(summary: &Value) -> u64 {
    sum(summary, "net_rx", "over_threshold").unwrap_or(0)
}

fn sum(summary: &Value, stage: &str, field: &str) -> Option<u64> {
    let series = summary["series"].as_array()?.iter().filter(|row| row["stage"] == stage);
    series.map(|row| row[field].as_u64()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_the_last_line() {
        let last = r#"{"kind":"summary","run":{"probes":[{"stage":"napi_poll"}]},"series":[{"stage":"net_rx","cpu":0,"count":5,"over_threshold":2},
            {"stage":"net_rx","cpu":1,"count":6,"over_threshold":1},{"stage":"napi_poll","count":3,"packets":17}]}"#;
        let stdout = format!("{{\"kind\":\"interval\"}}\n{}\n", last.replace('\n', ""));
        let output = Output { stdout, ..Output::default() };
        let summary = summary(&output).unwrap();
        assert_eq!(net_rx(&summary), Some(11));
        assert_eq!(packets(&summary), Some(17));
        assert_eq!(packets(&serde_json::json!({"run": {"probes": []}, "series": []})), None);
        assert_eq!(stalls(&summary), 3);
    }

    #[test]
    fn an_aborted_run_has_no_summary() {
        let output = Output { stdout: "{\"kind\":\"interval\"}\n".into(), ..Output::default() };
        assert!(summary(&output).is_none());
    }
}
