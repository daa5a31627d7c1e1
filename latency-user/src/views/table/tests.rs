//! Tests of the table.

use latency_common::{
    cpu_state::{RecordLedger, StageLedger},
    stage::Stage,
};

use super::*;
use crate::{
    model::{
        ledger::{Ledger, StageCounts, UserCounts},
        run::Transport,
    },
    views::fixtures,
};

const PLAIN: Style = Style { colour: false, width: 80 };

fn final_table(series: &[Series], change: impl Fn(&mut Summary)) -> String {
    let mut result = fixtures::summary(series);
    change(&mut result);
    let mut out = Vec::new();
    summary(&result, series, PLAIN, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn live_table(series: Vec<Series>, style: Style) -> String {
    let mut out = Vec::new();
    let (interval, start) = (fixtures::interval(series), fixtures::started_at());
    super::interval(&interval, start, fixtures::THRESHOLD_NS, style, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn assert_fits(table: &str) {
    for line in table.lines() {
        assert!(line.chars().count() <= 80, "{}: {line}", line.chars().count());
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[test]
fn the_answer_comes_first() {
    let table = final_table(&fixtures::stalled(), |_| ());
    assert_fits(&table);
    let mut lines = table.lines();
    assert_eq!(
        lines.next(),
        Some("NET_RX stalled 37 times at or above 1ms in 30.0s: worst 21.4ms on CPU 1.")
    );
    assert_eq!(
        lines.next(),
        Some("Also at or above 1ms: rx_wait 12 times, worst 7.51ms on CPU 1; tcp_collapse 12")
    );
    assert_eq!(lines.next(), Some("  times, worst 21.4ms on CPU 1."));
    assert_eq!(
        lines.next(),
        Some("Worst queue: eth0 q2 irq31, 37 polls at or above 1ms, longest 21.4ms.")
    );
    assert!(table.contains("note: approximate: from the end of the previous poll"));
    assert!(table.contains("softirq: the stage has no kprobe method"));
    assert!(table.contains("Accounting OK: "));
}

#[test]
fn stalled_rows_are_marked() {
    let table = live_table(fixtures::stalled(), PLAIN);
    let marked: Vec<_> = table.lines().filter(|line| line.starts_with("! ")).collect();
    assert_eq!(marked.len(), 4, "{table}");
    let table = live_table(fixtures::stalled(), Style { colour: true, width: 80 });
    let red = table.lines().filter(|line| line.starts_with("\x1b[1;31m! ")).count();
    assert_eq!(red, 4, "{table}");
}

#[test]
fn without_stalls_the_longest_run_is_shown() {
    let recorded = vec![fixtures::cpu(Stage::NetRx, 0, fixtures::durations(100, 300, &[340_000]))];
    let table = final_table(&recorded, |_| ());
    let answer = "No stall at or above 1ms in 30.0s; longest net_rx run 340us on CPU 0.\n";
    assert!(table.starts_with(answer), "{table}");
    assert!(
        table
            .contains("tcp_collapse: one call of tcp_collapse (tracepoint tcp_collapse): no event")
    );
}

#[test]
fn stalls_of_other_stages_do_not_hide_behind_net_rx() {
    let recorded = vec![
        fixtures::cpu(Stage::NetRx, 0, fixtures::durations(100, 300, &[340_000])),
        fixtures::cpu(Stage::RxWait, 3, fixtures::durations(100, 300, &[4_000_000])),
    ];
    let table = final_table(&recorded, |_| ());
    assert!(
        table.starts_with(
            "No net_rx run was at or above 1ms in 30.0s; longest 340us on CPU 0.\n\
             Also at or above 1ms: rx_wait 1 time, worst 4.00ms on CPU 3.\n"
        ),
        "{table}"
    );
}

#[test]
fn an_empty_run_is_reported() {
    let table = final_table(&[], |_| ());
    assert_fits(&table);
    assert!(table.starts_with("Nothing was recorded: no event of rx_wait, net_rx,"), "{table}");
    assert!(table.contains("Is there traffic on eth0?"));
    let table = final_table(&[], |summary| {
        summary.run.probes.retain(|probe| probe.method.is_none());
    });
    assert!(table.starts_with("Nothing was recorded: no stage could be timed.\n"), "{table}");
    assert!(live_table(Vec::new(), PLAIN).starts_with("03:04:05.006Z No event in 1.50s.\n"));
}

#[test]
fn awkward_names_and_numbers_fit() {
    let table = final_table(&fixtures::awkward(), |summary| {
        summary.run.host = "h".repeat(64);
        summary.run.ifaces = vec!["enp129s0f1np000".into(); 40];
        summary.run.probes[0].at = "x".repeat(200);
    });
    assert_fits(&table);
    // 28 of 256 stalled: more than a table for people shows.
    assert!(table.contains("+ 240 more CPUs: "), "{table}");
    assert!(table.lines().count() < 100, "{table}");
    assert_fits(&live_table(fixtures::awkward(), PLAIN));
    for width in [0, 1, 39, 200] {
        assert_fits(&live_table(fixtures::awkward(), Style { colour: false, width }));
    }
}

#[test]
fn a_broken_ledger_shows_its_sums() {
    let table = final_table(&fixtures::stalled(), |summary| {
        let cpus = StageLedger {
            unmatched_start: 5,
            ring_submitted: 40,
            ring_dropped: 2,
            clamped: 1,
            ..StageLedger::default()
        };
        let records = RecordLedger { submitted: 7, dropped: 3, limited: 2, ..Default::default() };
        let counted = UserCounts {
            started: 1000,
            recorded: 990,
            over_threshold: 20,
            in_progress: 2,
            events: 39,
            records: 6,
        };
        let broken = StageCounts::new(Stage::NetRx, &cpus, &records, counted, false);
        summary.run.transport = Transport::Ring;
        summary.ledger = Ledger {
            stages: vec![broken],
            malformed_events: 3,
            rows_that_differ: Some(4),
            malformed_records: 1,
            ..Ledger::default()
        }
        .closed();
    });
    assert_fits(&table);
    let words = table.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "ACCOUNTING FAILED",
        "net_rx: 1000 started != 990 recorded + 2 in progress + 5 unmatched + 0 backwards + 2 dropped: \
         1 missing",
        "net_rx: 20 stalls counted, 7 submitted + 3 dropped + 2 over the limit",
        "40 events sent through the ring buffer, 39 received: 1 missing",
        "3 events from the ring buffer could not be parsed",
        "4 rows with different counts by transport",
        "net_rx: 2 found the ring buffer full and are missing above",
        "net_rx: 1 longer than 68.7s",
    ] {
        assert!(words.contains(part), "{part}: {table}");
    }
}

#[test]
fn undescribed_records_are_counted_by_kind() {
    let table = final_table(&fixtures::stalled(), |summary| {
        summary.ledger.stages[0].records.limited = 2;
        summary.ledger.stages[1].records.dropped = 3;
        summary.ledger.samples.dropped = 7;
        summary.ledger.stages[1].unmatched_end = 11;
    });
    assert_fits(&table);
    let words = table.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "5 stalls counted but not described: 2 over --max-stalls, 3 found the ring buffer full.",
        "7 samples of stacks found the ring buffer full: not in the shares.",
        "napi_poll: 11 outside of NET_RX (threaded NAPI, busy polls of processes): not timed",
    ] {
        assert!(words.contains(part), "{part}: {table}");
    }
    assert!(!words.contains("tcp_collapse call"), "{table}");
}

#[test]
fn a_stall_is_described_with_its_end() {
    let table = final_table(&fixtures::stalled(), |summary| {
        summary.stalls.worst = vec![fixtures::stall()];
    });
    assert_fits(&table);
    assert!(table.contains("21.4ms net_rx on CPU 1, ended 03:04:05.912Z: tcp_collapse 87 %"));
}
