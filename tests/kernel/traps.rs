//! Known mistakes of tracers of this kind.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use latency_common::stage::Stage;
use latency_tests::{load, namespace, veth};
use latency_user::{
    collect::{config::Config, tracer::Tracer},
    model::{
        run::Transport,
        series::{Location, Queue},
    },
};
use libtest_mimic::Trial;

use crate::{
    injector::{Injector, MARKED_PORT},
    queues::flow_of_each_queue,
    suite::{Where, trial},
    tracing::{Tracing, counts, number, series},
};

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let everywhere = |name, body| trial(name, Where::Everywhere, &["ip", "ethtool"], body);
    [
        everywhere("traps::a_run_started_before_the_tracer_is_not_timed", started_before),
        everywhere("traps::a_full_slot_table_loses_no_events", full_table),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// How many tracers start, until one has started inside a run.
const FEWEST_STARTS: u32 = 5;
const MOST_STARTS: u32 = 60;

/// Tracers that start while NET_RX runs: they see an unmatched end, which must not count as a run
/// since boot.
fn started_before() -> Result<()> {
    namespace::run(|| {
        veth::make(4)?;
        let mut sender = veth::sender()?;
        let flow = flow_of_each_queue(&mut sender, MARKED_PORT)?[0];
        let mut injector = Injector::attach(Duration::from_millis(19))?;
        let mut unmatched = 0;
        let stop = AtomicBool::new(false);
        let stop = &stop;
        thread::scope(|scope| {
            let load = scope.spawn(move || {
                load::pin_to(0)?;
                while !stop.load(Ordering::Relaxed) {
                    injector.stall(&mut sender, flow, 1)?;
                }
                anyhow::Ok(())
            });
            // Where other work takes the CPUs, many start between two runs.
            let traced = (0..MOST_STARTS).try_for_each(|tried| {
                if tried >= FEWEST_STARTS && unmatched > 0 {
                    return Ok(());
                }
                let started = Instant::now();
                let summary = Tracing::start(&[])?.summary()?;
                let longest = started.elapsed().as_nanos() as u64;
                for row in series(&summary, |_| true) {
                    ensure!(number(row, "max_ns")? < longest, "{row}");
                }
                unmatched += number(counts(&summary, "net_rx")?, "unmatched_end")?;
                ensure!(summary["ledger"]["balanced"] == true, "{}", summary["ledger"]);
                Ok(())
            });
            stop.store(true, Ordering::Relaxed);
            let load = load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            traced.and(load)
        })?;
        ensure!(unmatched > 0, "no tracer started inside a run of NET_RX");
        Ok(())
    })
}

/// With one slot, the other queues share a row, no event is lost, and the ledger counts the full
/// table.
fn full_table() -> Result<()> {
    namespace::run(|| {
        load::pin_to(0)?;
        veth::make(4)?;
        let mut sender = veth::sender()?;
        let flows = flow_of_each_queue(&mut sender, MARKED_PORT)?;
        let mut tracer = Tracer::start(&Config {
            stages: vec![Stage::NapiPoll],
            by_name: true,
            transport: Transport::Both,
            ring_events: 65_536,
            slots: Some(1),
            ..Config::new()
        })?;
        let packets = 1009;
        let before = veth::packets_by_queue()?;
        for round in 0..packets {
            sender.send(flows[round % flows.len()], MARKED_PORT)?;
        }
        let arrived: u64 = veth::packets_by_queue()?.iter().zip(&before).map(|(a, b)| a - b).sum();
        let ledger = tracer.finish();
        tracer.take_series()?;

        ensure!(ledger.balanced && ledger.rows_that_differ == Some(0), "{ledger:?}");
        ensure!(ledger.stages[0].table_full > 0, "{ledger:?}");
        let total = tracer.total();
        let work = |wanted: fn(&Queue) -> bool| -> u64 {
            let is_it = |at: &Location| matches!(at, Location::Queue(queue) if wanted(queue));
            let rows = total.iter().filter(|series| is_it(&series.id.at));
            rows.map(|series| series.distribution.work).sum()
        };
        let (own, other) = (
            work(|queue| matches!(queue, Queue::Device { .. })),
            work(|queue| matches!(queue, Queue::NoSlot { .. })),
        );
        ensure!(
            own > 0 && other > 0 && own + other >= arrived,
            "{own} + {other}, {arrived} arrived"
        );
        Ok(())
    })
}
