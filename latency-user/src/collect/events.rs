//! The ring transport: counts every event in a histogram in user space.

use std::collections::HashMap;

use bytes::Buf;
use hdrhistogram::Histogram;
use latency_common::{
    bucket::{MAX_VALUE, index_of},
    span_event::SpanEvent,
};

use crate::model::distribution::{Distribution, empty_histogram};

/// Histograms of single events. `hdrhistogram` itself finds the bucket of each.
#[derive(Default)]
pub struct EventCounts {
    rows: HashMap<u32, EventRow>,
    /// Events of a wrong size.
    pub malformed: u64,
}

struct EventRow {
    histogram: Histogram<u64>,
    sum_ns: u64,
    max_ns: u64,
    over_threshold: u64,
    work: u64,
}

impl EventCounts {
    /// Counts the event in `bytes`; one of a wrong size is counted as malformed.
    pub fn add(&mut self, bytes: &[u8], threshold_ns: u64) {
        let Some(event) = parse(bytes) else {
            self.malformed += 1;
            return;
        };
        let row = self.rows.entry(event.row).or_insert_with(|| EventRow {
            histogram: empty_histogram(),
            sum_ns: 0,
            max_ns: 0,
            over_threshold: 0,
            work: 0,
        });
        row.histogram.saturating_record(event.duration_ns.min(MAX_VALUE));
        row.sum_ns += event.duration_ns;
        row.max_ns = row.max_ns.max(event.duration_ns);
        row.over_threshold += u64::from(event.duration_ns >= threshold_ns);
        row.work += u64::from(event.work);
    }

    /// Indices of the rows that have events.
    pub fn rows(&self) -> impl Iterator<Item = u32> {
        self.rows.keys().copied()
    }

    /// The distribution of the row at `index`.
    pub fn distribution(&self, index: u32) -> Option<Distribution> {
        self.rows.get(&index).map(|row| Distribution {
            buckets: row
                .histogram
                .iter_recorded()
                .map(|step| {
                    (index_of(step.value_iterated_to()) as u16, step.count_since_last_iteration())
                })
                .collect(),
            sum_ns: row.sum_ns,
            max_ns: row.max_ns,
            over_threshold: row.over_threshold,
            work: row.work,
        })
    }
}

fn parse(mut bytes: &[u8]) -> Option<SpanEvent> {
    if bytes.len() != SpanEvent::SIZE {
        return None;
    }
    Some(SpanEvent {
        end_ns: bytes.get_u64_ne(),
        duration_ns: bytes.get_u64_ne(),
        row: bytes.get_u32_ne(),
        work: bytes.get_u32_ne(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(duration_ns: u64, row: u32, work: u32) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        bytes.extend(duration_ns.to_ne_bytes());
        bytes.extend(row.to_ne_bytes());
        bytes.extend(work.to_ne_bytes());
        bytes
    }

    #[test]
    fn events_are_counted_as_rows_count_them() {
        let mut counts = EventCounts::default();
        let mut expected = Distribution::default();
        for ns in [0, 1, 255, 256, 999_999, 1_000_000, 20_000_000, MAX_VALUE] {
            counts.add(&event(ns, 7, 3), 1_000_000);
            expected.record(ns, 1_000_000, 3);
        }
        assert_eq!(counts.distribution(7), Some(expected));
        assert_eq!(counts.distribution(8), None);
    }

    #[test]
    fn events_of_a_wrong_size_are_counted_as_malformed() {
        let mut counts = EventCounts::default();
        counts.add(&[0; 23], 1);
        counts.add(&[], 1);
        assert_eq!(counts.malformed, 2);
        assert_eq!(counts.rows().count(), 0);
    }
}
