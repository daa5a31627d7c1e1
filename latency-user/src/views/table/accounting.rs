//! Accounting: whether every event that started is accounted for, and what was lost.

use latency_common::{bucket::MAX_VALUE, stage::Stage};

use crate::{
    model::{
        ledger::{Ledger, ProgramCounts, StageCounts},
        method::Method,
        run::{Run, Transport},
        stage::StageName,
    },
    views::format::{count, counted, duration},
    views::printable,
};

/// Paragraphs on whether the ledger balances: one if it does, else the sums of every stage.
pub(super) fn balance(ledger: &Ledger, transport: Transport) -> Vec<String> {
    if ledger.stages.is_empty() {
        return vec!["No accounting: the run was cut short, or no stage was timed.".into()];
    }
    let sum = |of: fn(&StageCounts) -> u64| ledger.stages.iter().map(of).sum::<u64>();
    let sent = sum(|counts| counts.ring_submitted);
    if ledger.balanced {
        let sent = match sent {
            0 => String::new(),
            _ => format!(" {} sent through the ring buffer, all received.", count(sent)),
        };
        let agreed = match ledger.rows_that_differ {
            Some(_) => " Both transports agree in every row.",
            None => "",
        };
        return vec![format!(
            "Accounting OK: {}, none lost ({} in progress).{sent}{agreed}",
            counted(sum(|counts| counts.started), "event"),
            count(sum(|counts| counts.in_progress)),
        )];
    }
    let mut lines = vec!["ACCOUNTING FAILED: the counts above are not to be trusted.".into()];
    for counts in &ledger.stages {
        lines.push(equation(counts, transport));
        if !counts.covers_every_stall(transport.counts_in_rows()) {
            lines.push(format!(
                "  {}: {} counted, {} submitted + {} dropped + {} over the limit",
                counts.stage,
                counted(counts.over_threshold, "stall"),
                count(counts.records.submitted),
                count(counts.records.dropped),
                count(counts.records.limited),
            ));
        }
        if counts.ring_submitted != counts.ring_received {
            lines.push(format!(
                "  {}: {} sent through the ring buffer, {} received: {}",
                counts.stage,
                counted(counts.ring_submitted, "event"),
                count(counts.ring_received),
                difference(counts.ring_submitted, counts.ring_received),
            ));
        }
    }
    let records = ledger.stages.iter().map(|counts| (counts.stage.as_str(), &counts.records));
    let others = [("tcp_collapse", &ledger.collapses), ("samples", &ledger.samples)];
    for (what, counts) in records.chain(others).filter(|(_, counts)| !counts.is_balanced()) {
        lines.push(format!(
            "  {what}: {} submitted, {} received: {}",
            counted(counts.submitted, "record"),
            count(counts.received),
            difference(counts.submitted, counts.received),
        ));
    }
    if ledger.malformed_records > 0 {
        lines.push(format!(
            "  {} of stalls could not be parsed",
            counted(ledger.malformed_records, "record")
        ));
    }
    if ledger.malformed_events > 0 {
        lines.push(format!(
            "  {} from the ring buffer could not be parsed",
            counted(ledger.malformed_events, "event")
        ));
    }
    if let Some(rows @ 1..) = ledger.rows_that_differ {
        lines.push(format!("  {} with different counts by transport", counted(rows, "row")));
    }
    lines
}

/// `net_rx: 1000 started != 990 recorded + 2 in progress + 5 unmatched + 0 backwards: 3 missing`.
fn equation(counts: &StageCounts, transport: Transport) -> String {
    let dropped = if transport.counts_in_rows() { 0 } else { counts.ring_dropped };
    let ended =
        counts.recorded + counts.in_progress + counts.unmatched_start + counts.backwards + dropped;
    let sign = if counts.started == ended { "=" } else { "!=" };
    let dropped = match transport.counts_in_rows() {
        true => String::new(),
        false => format!(" + {} dropped", count(dropped)),
    };
    format!(
        "  {}: {} started {sign} {} recorded + {} in progress + {} unmatched + {} backwards{dropped}: \
         {}",
        counts.stage,
        count(counts.started),
        count(counts.recorded),
        count(counts.in_progress),
        count(counts.unmatched_start),
        count(counts.backwards),
        difference(counts.started, ended),
    )
}

fn difference(expected: u64, found: u64) -> String {
    match expected.cmp(&found) {
        std::cmp::Ordering::Equal => "balanced".into(),
        std::cmp::Ordering::Greater => format!("{} missing", count(expected - found)),
        std::cmp::Ordering::Less => format!("{} too many", count(found - expected)),
    }
}

/// One paragraph for each program that the kernel skipped or whose probe missed calls.
pub(super) fn misses(ledger: &Ledger) -> Vec<String> {
    let lines = |program: &ProgramCounts| {
        let skipped = program.recursion_misses.filter(|n| *n > 0);
        let missed = program.missed.filter(|n| *n > 0);
        [
            skipped.map(|n| format!("{} skipped by the kernel", counted(n, "run"))),
            missed.map(|n| format!("{} missed by its probe", counted(n, "call"))),
        ]
        .into_iter()
        .flatten()
        .map(|what| format!("  {}: {what}: not counted above", printable(&program.program)))
        .collect::<Vec<_>>()
    };
    ledger.programs.iter().flat_map(lines).collect()
}

/// One paragraph for each kind of loss or caveat.
pub(super) fn losses(ledger: &Ledger, run: &Run) -> Vec<String> {
    let transport = run.transport;
    let full_ring = if transport.counts_in_rows() {
        "found the ring buffer full; the rows in the kernel counted them"
    } else {
        "found the ring buffer full and are missing above; --transport maps cannot overflow"
    };
    let longest = duration(MAX_VALUE);
    let too_long = format!("longer than {longest}: in the last bucket, exact in sum and maximum");
    let mut lines = Vec::new();
    for counts in &ledger.stages {
        let unmatched_end = match by_napi_tracepoint(&counts.stage, run) {
            true => "outside of NET_RX (threaded NAPI, busy polls of processes): not timed",
            false => "ended without a start, as at start-up: not recorded",
        };
        let losses = [
            (counts.ring_dropped, full_ring),
            (counts.table_full, "in rows `other`: the table of queues or IRQs was full"),
            (counts.clamped, &*too_long),
            (counts.unmatched_start, "started without an end: not recorded"),
            (counts.backwards, "ended before they started: not recorded"),
            (counts.unmatched_end, unmatched_end),
        ];
        for (n, what) in losses.into_iter().filter(|(n, _)| *n > 0) {
            lines.push(format!("  {}: {} {what}", counts.stage, count(n)));
        }
    }
    lines
}

/// Whether NAPI polls are timed by the tracepoint, which fires only at the end of a poll.
fn by_napi_tracepoint(stage: &StageName, run: &Run) -> bool {
    *stage == Stage::NapiPoll
        && run
            .probes
            .iter()
            .any(|probe| probe.stage == Stage::NapiPoll && probe.method == Some(Method::Tracepoint))
}
