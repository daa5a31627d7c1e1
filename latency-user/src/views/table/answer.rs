//! The answer in sentences: did packet processing stall, how often, how long, where.

use latency_common::stage::Stage;

use crate::{
    model::run::Run,
    views::format::{counted, duration, short_duration},
};

use super::rows::{TableRow, stalls, worst};

/// Stages that the answer may be about: the first of these that recorded something.
const LEADERS: [Stage; 6] =
    [Stage::NetRx, Stage::NapiPoll, Stage::RxWait, Stage::Irq, Stage::TcpCollapse, Stage::Softirq];

/// One to three sentences, each a paragraph, on stages that recorded something.
///
/// `None` when none did.
pub(super) fn answer(
    stages: &[(Stage, Vec<TableRow<'_>>)],
    threshold_ns: u64,
    lasted: &str,
) -> Option<Vec<String>> {
    let rows_of = |stage| stages.iter().find(|(s, _)| *s == stage).map(|(_, rows)| &rows[..]);
    let (leader, rows) =
        LEADERS.into_iter().find_map(|stage| rows_of(stage).map(|rows| (stage, rows)))?;
    let worst_row = worst(rows)?;
    let threshold = short_duration(threshold_ns);
    let max = duration(worst_row.distribution.max_ns);
    let place = worst_row.place();
    let others: Vec<String> = stages
        .iter()
        .filter(|(stage, rows)| *stage != leader && *stage != Stage::NapiPoll && stalls(rows) > 0)
        .filter_map(|(stage, rows)| Some(times(*stage, rows, worst(rows)?)))
        .collect();

    let what = run_of(leader);
    let mut sentences = match stalls(rows) {
        0 if stages.iter().all(|(_, rows)| stalls(rows) == 0) => vec![format!(
            "No stall at or above {threshold} in {lasted}; longest {what} {max} on {place}."
        )],
        0 => vec![format!(
            "No {what} was at or above {threshold} in {lasted}; longest {max} on {place}."
        )],
        stalled => vec![format!(
            "{} stalled {} at or above {threshold} in {lasted}: worst {max} on {place}.",
            subject(leader),
            counted(stalled, "time"),
        )],
    };
    if !others.is_empty() {
        let others = others.join("; ");
        sentences.push(format!("Also at or above {threshold}: {others}."));
    }
    if leader != Stage::NapiPoll
        && let Some(polls) = rows_of(Stage::NapiPoll)
        && let Some(queue) = worst(polls)
        && queue.distribution.over_threshold > 0
    {
        sentences.push(format!(
            "Worst queue: {}, {} at or above {threshold}, longest {}.",
            queue.place(),
            counted(queue.distribution.over_threshold, "poll"),
            duration(queue.distribution.max_ns),
        ));
    }
    Some(sentences)
}

/// The answer when no stage recorded anything.
pub(super) fn nothing(run: &Run, lasted: &str) -> String {
    let timed: Vec<&str> =
        run.probes.iter().filter(|probe| probe.method.is_some()).map(|p| p.stage.name()).collect();
    if timed.is_empty() {
        return "Nothing was recorded: no stage could be timed.".into();
    }
    let timed = timed.join(", ");
    let question = if run.ifaces.is_empty() {
        String::new()
    } else {
        format!(" Is there traffic on {}?", run.ifaces.join(", "))
    };
    format!("Nothing was recorded: no event of {timed} in {lasted}.{question}")
}

/// `rx_wait 12 times, worst 4.00ms on CPU 1`.
fn times(stage: Stage, rows: &[TableRow<'_>], worst: &TableRow<'_>) -> String {
    format!(
        "{} {}, worst {} on {}",
        stage.name(),
        counted(stalls(rows), "time"),
        duration(worst.distribution.max_ns),
        worst.place()
    )
}

fn subject(stage: Stage) -> &'static str {
    match stage {
        Stage::NetRx => "NET_RX",
        Stage::NapiPoll => "NAPI polls",
        Stage::RxWait => "The wait for NET_RX",
        Stage::Irq => "Hard IRQs",
        Stage::TcpCollapse => "tcp_collapse",
        Stage::Softirq => "Other softirqs",
    }
}

fn run_of(stage: Stage) -> &'static str {
    match stage {
        Stage::NetRx => "net_rx run",
        Stage::NapiPoll => "NAPI poll",
        Stage::RxWait => "wait for NET_RX",
        Stage::Irq => "hard IRQ",
        Stage::TcpCollapse => "tcp_collapse call",
        Stage::Softirq => "softirq run",
    }
}
