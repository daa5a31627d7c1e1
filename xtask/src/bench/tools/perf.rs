//! `perf record` of softirq entry and exit: every event goes through a ring buffer.

use super::tool::{Tool, installed, words};

pub(crate) const NAME: &str = "perf record";

pub(crate) fn tool() -> Tool {
    Tool {
        name: NAME,
        program: installed("perf"),
        arguments: words(
            "record --all-cpus --event irq:softirq_entry --event irq:softirq_exit \
             --output /dev/null",
        ),
        package: "linux-perf",
        // It reports bytes, not events.
        count: |_| None,
    }
}
