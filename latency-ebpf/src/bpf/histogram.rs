//! The only writer of rows and the only sender of events. Decides what is a stall.

use latency_common::{
    bucket::{self, BUCKETS},
    row::{HistogramRow, group_of},
    span_event::SpanEvent,
    stage::Stage,
};

use super::{
    atomic::{add, add_one, or, raise_to},
    config,
    cpu::Cpu,
    maps::{ROWS, SPAN_EVENTS, wake_up},
    span::Span,
    stalls::send_stall,
};

/// Counts `span` in its row, and sends it if the transport sends events.
#[inline(always)]
pub(crate) fn record(cpu: &mut Cpu, span: Span) {
    let many = has_many_writers(&span);
    let ledger = cpu.ledger(span.stage);
    if span.end_ns < span.start_ns {
        increase(&mut ledger.backwards, 1, many);
        return;
    }
    let ns = span.end_ns - span.start_ns;
    let is_stall = ns >= config::THRESHOLD_NS.load();
    if ns > bucket::MAX_VALUE {
        increase(&mut ledger.clamped, 1, many);
    }
    if config::COUNT_IN_ROWS.load() != 0 {
        if let Some((row, bucket)) = find(span.row, ns) {
            let group = 1 << group_of(bucket);
            if row.groups & group == 0 {
                set(&mut row.groups, group, many);
            }
            count(&mut row.buckets[bucket], many);
            increase(&mut row.sum_ns, ns, many);
            if ns > row.max_ns {
                raise(&mut row.max_ns, ns, many);
            }
            if is_stall {
                increase(&mut row.over_threshold, 1, many);
            }
            if span.work != 0 {
                increase(&mut row.work, u64::from(span.work), many);
            }
        }
    }
    if is_stall && span.stage as u32 != Stage::Softirq as u32 {
        send_stall(cpu, &span);
    }
    if config::SEND_EVENTS.load() != 0 {
        send(cpu, &span, ns);
    }
}

/// Whether the row of `span` may have concurrent writers.
///
/// A CPU writes only its own rows, and a stage does not interrupt itself. There are two exceptions:
/// `tcp_collapse` also runs in processes, where a softirq or another task may interrupt it; and a
/// NAPI instance is released to other CPUs before our probe sees the end of its poll.
#[inline(always)]
fn has_many_writers(span: &Span) -> bool {
    match span.stage {
        Stage::TcpCollapse => true,
        Stage::NapiPoll => span.row >= config::SLOT_BASE.load(),
        _ => false,
    }
}

/// Counts an event in a bucket, atomically if there are `many` writers.
#[inline(always)]
fn count(bucket: &mut u32, many: bool) {
    if many {
        add_one(bucket);
    } else {
        *bucket = bucket.wrapping_add(1);
    }
}

/// Adds `amount`, atomically if there are `many` writers.
#[inline(always)]
fn increase(counter: &mut u64, amount: u64, many: bool) {
    if many {
        add(counter, amount);
    } else {
        *counter += amount;
    }
}

/// Sets the bits of `mask`, atomically if there are `many` writers.
#[inline(always)]
fn set(bits: &mut u64, mask: u64, many: bool) {
    if many {
        or(bits, mask);
    } else {
        *bits |= mask;
    }
}

/// Raises `maximum` to `value`, atomically if there are `many` writers.
#[inline(always)]
fn raise(maximum: &mut u64, value: u64, many: bool) {
    if many {
        raise_to(maximum, value);
    } else {
        *maximum = value;
    }
}

/// The row with this index and the bucket for `ns`. `None` never happens in a loaded program; the
/// verifier requires the checks.
#[inline(always)]
fn find(row: u32, ns: u64) -> Option<(&'static mut HistogramRow, usize)> {
    let row = ROWS.get_ptr_mut(row)?;
    let bucket = bucket::index_of(ns);
    if bucket >= BUCKETS {
        return None;
    }
    // SAFETY: the pointer comes from a map lookup; see `has_many_writers`.
    Some((unsafe { &mut *row }, bucket))
}

/// Sends an event; if the ring is full, counts it as dropped.
#[inline(always)]
fn send(cpu: &mut Cpu, span: &Span, ns: u64) {
    let event = SpanEvent { end_ns: span.end_ns, duration_ns: ns, row: span.row, work: span.work };
    let ledger = cpu.ledger(span.stage);
    let Some(mut entry) = SPAN_EVENTS.reserve::<SpanEvent>(0) else {
        add(&mut ledger.ring_dropped, 1);
        return;
    };
    entry.write(event);
    entry.submit(wake_up(&SPAN_EVENTS, config::WAKE_AT_BYTES.load()));
    add(&mut ledger.ring_submitted, 1);
}
