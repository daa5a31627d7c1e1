//! The books: whether everything that began is accounted for, and what was lost.

use latency_common::{bucket::MAX_VALUE, stage::Stage};

use crate::{
    model::{
        ledger::{Ledger, ProgramBooks, StageBooks},
        run::{Method, Run, Transport},
    },
    views::format::{count, counted, duration},
};

/// Paragraphs that say whether the books balance: one when they do, else every stage's sums.
pub(super) fn balance(ledger: &Ledger, transport: Transport) -> Vec<String> {
    if ledger.stages.is_empty() {
        return vec![
            "No books: the recording ends before its run did, or no stage was timed.".into(),
        ];
    }
    let sum = |of: fn(&StageBooks) -> u64| ledger.stages.iter().map(of).sum::<u64>();
    let sent = sum(|books| books.ring_submitted);
    if ledger.balanced {
        let events = match sent {
            0 => String::new(),
            _ => format!(" {} sent, all received.", counted(sent, "event")),
        };
        let agreed = match ledger.rows_that_differ {
            Some(_) => " Both transports agree in every row.",
            None => "",
        };
        return vec![format!(
            "Books balance: {} begun, all accounted for ({} open).{events}{agreed}",
            counted(sum(|books| books.begins), "interval"),
            count(sum(|books| books.open)),
        )];
    }
    let mut lines =
        vec!["THE BOOKS DO NOT BALANCE: the counts above are not to be trusted.".into()];
    for books in &ledger.stages {
        lines.push(equation(books, transport));
        if !books.tell_every_stall(transport.counts_in_rows()) {
            lines.push(format!(
                "  {}: {} counted, {} submitted + {} dropped + {} over the limit",
                books.stage,
                counted(books.over_threshold, "stall"),
                count(books.records.submitted),
                count(books.records.dropped),
                count(books.records.limited),
            ));
        }
        if books.ring_submitted != books.ring_received {
            lines.push(format!(
                "  {}: {} sent through the ring buffer, {} received: {}",
                books.stage,
                counted(books.ring_submitted, "event"),
                count(books.ring_received),
                difference(books.ring_submitted, books.ring_received),
            ));
        }
    }
    let records = ledger.stages.iter().map(|books| (&*books.stage, &books.records));
    let others = [("tcp_collapse", &ledger.collapses), ("samples", &ledger.samples)];
    for (what, books) in records.chain(others).filter(|(_, books)| !books.is_balanced()) {
        lines.push(format!(
            "  {what}: {} submitted, {} received: {}",
            counted(books.submitted, "record"),
            count(books.received),
            difference(books.submitted, books.received),
        ));
    }
    if ledger.malformed_records > 0 {
        lines.push(format!(
            "  {} of stalls could not be understood",
            counted(ledger.malformed_records, "record")
        ));
    }
    if ledger.malformed_events > 0 {
        lines.push(format!(
            "  {} from the ring buffer could not be understood",
            counted(ledger.malformed_events, "event")
        ));
    }
    if let Some(rows @ 1..) = ledger.rows_that_differ {
        lines.push(format!("  {} with different counts by transport", counted(rows, "row")));
    }
    lines
}

/// `net_rx: 1000 begun = 990 recorded + 2 open + 5 without end + 0 backwards: 3 missing`.
fn equation(books: &StageBooks, transport: Transport) -> String {
    let dropped = if transport.counts_in_rows() { 0 } else { books.ring_dropped };
    let ended = books.recorded + books.open + books.begins_without_end + books.backwards + dropped;
    let sign = if books.begins == ended { "=" } else { "!=" };
    let dropped = match transport.counts_in_rows() {
        true => String::new(),
        false => format!(" + {} dropped", count(dropped)),
    };
    format!(
        "  {}: {} begun {sign} {} recorded + {} open + {} without end + {} backwards{dropped}: {}",
        books.stage,
        count(books.begins),
        count(books.recorded),
        count(books.open),
        count(books.begins_without_end),
        count(books.backwards),
        difference(books.begins, ended),
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
    let told = |program: &ProgramBooks| {
        let skipped = program.recursion_misses.filter(|n| *n > 0);
        let missed = program.missed.filter(|n| *n > 0);
        [
            skipped.map(|n| format!("{} skipped by the kernel", counted(n, "run"))),
            missed.map(|n| format!("{} missed by its probe", counted(n, "call"))),
        ]
        .into_iter()
        .flatten()
        .map(|what| format!("  {}: {what}: not counted above", program.program))
        .collect::<Vec<_>>()
    };
    ledger.programs.iter().flat_map(told).collect()
}

/// One paragraph for each way in which something was lost or recorded with a proviso.
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
    for books in &ledger.stages {
        let without_begin = match by_napi_tracepoint(&books.stage, run) {
            true => "outside of NET_RX (threaded NAPI, busy polls of processes): not timed",
            false => "ended without a begin seen, as at start-up: not recorded",
        };
        let told = [
            (books.ring_dropped, full_ring),
            (books.table_full, "in rows `other`: the table of queues or IRQs was full"),
            (books.clamped, &*too_long),
            (books.begins_without_end, "began and never met their end: not recorded"),
            (books.backwards, "ended before they began: not recorded"),
            (books.ends_without_begin, without_begin),
        ];
        for (n, what) in told.into_iter().filter(|(n, _)| *n > 0) {
            lines.push(format!("  {}: {} {what}", books.stage, count(n)));
        }
    }
    lines
}

/// Whether the stage is NAPI polls by the tracepoint, which tells of a poll at its end alone.
fn by_napi_tracepoint(stage: &str, run: &Run) -> bool {
    run.probes.iter().any(|probe| {
        probe.stage == Stage::NapiPoll
            && probe.stage.name() == stage
            && probe.method == Some(Method::Tracepoint)
    })
}
