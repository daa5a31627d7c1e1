//! The only writer of rows, and the only sender of events. What is a stall is decided here.

use latency_common::{
    bucket::{self, BUCKETS},
    event::IntervalEvent,
    row::HistogramRow,
    stage::Stage,
};

use super::{
    atomic::{add, raise_to},
    config,
    cpu::Cpu,
    maps::{EVENTS, ROWS},
    stalls::send_stall,
};

/// `BPF_RB_NO_WAKEUP`: the reader polls, a wake-up for each event would cost more than the event.
const NO_WAKEUP: u64 = 1;
/// `BPF_RB_FORCE_WAKEUP`: the ring fills up faster than the reader polls.
const FORCE_WAKEUP: u64 = 2;
/// `BPF_RB_AVAIL_DATA`: asks for the number of unread bytes.
const AVAILABLE: u64 = 0;

/// One finished interval.
pub(super) struct Interval {
    pub(super) stage: Stage,
    /// Index of the row that counts it.
    pub(super) row: u32,
    pub(super) begin_ns: u64,
    pub(super) end_ns: u64,
    /// Packets of a NAPI poll.
    pub(super) work: u32,
}

/// Counts `interval` in its row, and sends it where events are sent.
///
/// Plain additions suffice for every stage but `tcp_collapse`: a CPU writes only rows of its
/// own, a NAPI instance is polled on one CPU at a time, and a stage does not interrupt itself.
#[inline(always)]
pub(super) fn record(cpu: &mut Cpu, interval: Interval) {
    if interval.end_ns < interval.begin_ns {
        cpu.ledger(interval.stage).backwards += 1;
        return;
    }
    let ns = interval.end_ns - interval.begin_ns;
    if ns > bucket::MAX_VALUE {
        cpu.ledger(interval.stage).clamped += 1;
    }
    if config::COUNT_IN_ROWS.load() != 0 {
        if let Some((row, bucket)) = find(interval.row, ns) {
            row.buckets[bucket] += 1;
            row.sum_ns += ns;
            if ns > row.max_ns {
                row.max_ns = ns;
            }
            if is_stall(ns) {
                row.over_threshold += 1;
            }
            if interval.work != 0 {
                row.work += u64::from(interval.work);
            }
        }
    }
    if is_stall(ns) && interval.stage as u32 != Stage::Softirq as u32 {
        send_stall(cpu, &interval);
    }
    if config::SEND_EVENTS.load() != 0 {
        send(cpu, &interval, ns);
    }
}

/// Like [`record`], for intervals that may interrupt their own kind on one CPU.
///
/// `tcp_collapse` also runs in processes, where a softirq or another task may come in between.
#[inline(always)]
pub(super) fn record_atomically(cpu: &mut Cpu, interval: Interval) {
    let ledger = cpu.ledger(interval.stage);
    if interval.end_ns < interval.begin_ns {
        add(&mut ledger.backwards, 1);
        return;
    }
    let ns = interval.end_ns - interval.begin_ns;
    if ns > bucket::MAX_VALUE {
        add(&mut ledger.clamped, 1);
    }
    if config::COUNT_IN_ROWS.load() != 0 {
        if let Some((row, bucket)) = find(interval.row, ns) {
            add(&mut row.buckets[bucket], 1);
            add(&mut row.sum_ns, ns);
            raise_to(&mut row.max_ns, ns);
            if is_stall(ns) {
                add(&mut row.over_threshold, 1);
            }
        }
    }
    if is_stall(ns) && interval.stage as u32 != Stage::Softirq as u32 {
        send_stall(cpu, &interval);
    }
    if config::SEND_EVENTS.load() != 0 {
        send(cpu, &interval, ns);
    }
}

#[inline(always)]
fn is_stall(ns: u64) -> bool {
    ns >= config::THRESHOLD_NS.load()
}

/// The row with this index and the bucket for `ns`. `None` never happens on a loaded program:
/// it is what the verifier needs to see.
#[inline(always)]
fn find(row: u32, ns: u64) -> Option<(&'static mut HistogramRow, usize)> {
    let row = ROWS.get_ptr_mut(row)?;
    let bucket = bucket::index_of(ns);
    if bucket >= BUCKETS {
        return None;
    }
    // SAFETY: the pointer comes from a map look-up; see `record` on who writes it.
    Some((unsafe { &mut *row }, bucket))
}

/// Sends an event; a full ring is counted as loss.
#[inline(always)]
fn send(cpu: &mut Cpu, interval: &Interval, ns: u64) {
    let event = IntervalEvent {
        end_ns: interval.end_ns,
        duration_ns: ns,
        row: interval.row,
        work: interval.work,
    };
    let ledger = cpu.ledger(interval.stage);
    let Some(mut entry) = EVENTS.reserve::<IntervalEvent>(0) else {
        add(&mut ledger.ring_dropped, 1);
        return;
    };
    entry.write(event);
    let crowded = EVENTS.query(AVAILABLE) > config::WAKE_AT_BYTES.load();
    entry.submit(if crowded { FORCE_WAKEUP } else { NO_WAKEUP });
    add(&mut ledger.ring_submitted, 1);
}
