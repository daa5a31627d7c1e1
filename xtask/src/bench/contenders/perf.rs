//! `perf record` of the softirqs' entries and exits: every event through a ring buffer.

use super::{Contender, installed, words};

pub(crate) const NAME: &str = "perf record";

pub(crate) fn contender() -> Contender {
    Contender {
        name: NAME,
        program: installed("perf"),
        arguments: words(
            "record --all-cpus --event irq:softirq_entry --event irq:softirq_exit \
             --output /dev/null",
        ),
        package: "linux-perf",
        // It says bytes, not events.
        count: |_| None,
    }
}
