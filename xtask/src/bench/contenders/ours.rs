//! latency-user itself.

use serde_json::Value;

use super::{Contender, words};
use crate::bench::{Built, tracer::Said};

/// Stands for what no package brings.
pub(crate) const PACKAGE: &str = "latency-user";

/// rx_wait, net_rx and napi_poll alone, as all can be timed by raw tracepoints everywhere.
pub(crate) const CYCLE: &str = "ours, cycle";
/// As a user starts it.
pub(crate) const EVERYTHING: &str = "ours, default";
/// The same without the clock that takes stacks of stalls.
pub(crate) const WITHOUT_SAMPLER: &str = "ours, no sampler";

const STAGES: &str = "--stages rx_wait,net_rx,napi_poll --sample-hz 0";

pub(crate) fn cycle(built: &Built) -> Contender {
    cycle_with(built, "")
}

/// As [`cycle`], with more arguments.
pub(crate) fn cycle_with(built: &Built, arguments: &str) -> Contender {
    contender(built, CYCLE, &format!("{STAGES} --probes tracepoint {arguments}"))
}

pub(crate) fn everything(built: &Built) -> Contender {
    contender(built, EVERYTHING, "")
}

pub(crate) fn without_sampler(built: &Built) -> Contender {
    contender(built, WITHOUT_SAMPLER, "--sample-hz 0")
}

/// net_rx and napi_poll by one method.
pub(crate) fn by(built: &Built, method: &str) -> Contender {
    let name = match method {
        "fentry" => "ours, fentry",
        "kprobe" => "ours, kprobe",
        _ => "ours, tracepoint",
    };
    let arguments = format!("--stages net_rx,napi_poll --sample-hz 0 --probes {method}");
    contender(built, name, &arguments)
}

/// With other arguments, under a name of its own.
pub(crate) fn contender(built: &Built, name: &'static str, arguments: &str) -> Contender {
    Contender {
        name,
        program: Some(built.latency_user.clone()),
        arguments: words(&format!("trace --format json {arguments}")),
        package: PACKAGE,
        count: |said| net_rx(&summary(said)?),
    }
}

/// The last line that it printed.
pub(crate) fn summary(said: &Said) -> Option<Value> {
    let summary: Value = serde_json::from_str(said.stdout.lines().next_back()?).ok()?;
    (summary["kind"] == "summary").then_some(summary)
}

/// Runs of NET_RX.
pub(crate) fn net_rx(summary: &Value) -> Option<u64> {
    sum(summary, "net_rx", "count")
}

/// Packets that NAPI polls processed.
pub(crate) fn packets(summary: &Value) -> Option<u64> {
    sum(summary, "napi_poll", "packets")
}

/// Runs of NET_RX at or above the threshold.
pub(crate) fn stalls(summary: &Value) -> u64 {
    sum(summary, "net_rx", "over_threshold").unwrap_or(0)
}

fn sum(summary: &Value, stage: &str, field: &str) -> Option<u64> {
    let series = summary["series"].as_array()?.iter().filter(|one| one["stage"] == stage);
    series.map(|one| one[field].as_u64()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_the_last_line() {
        let last = r#"{"kind":"summary","series":[{"stage":"net_rx","cpu":0,"count":5,"over_threshold":2},
            {"stage":"net_rx","cpu":1,"count":6,"over_threshold":1},{"stage":"napi_poll","count":3,"packets":17}]}"#;
        let stdout = format!("{{\"kind\":\"interval\"}}\n{}\n", last.replace('\n', ""));
        let said = Said { stdout, ..Said::default() };
        let summary = summary(&said).unwrap();
        assert_eq!(net_rx(&summary), Some(11));
        assert_eq!(packets(&summary), Some(17));
        assert_eq!(stalls(&summary), 3);
    }

    #[test]
    fn a_run_that_broke_off_has_none() {
        let said = Said { stdout: "{\"kind\":\"interval\"}\n".into(), ..Said::default() };
        assert!(summary(&said).is_none());
    }
}
