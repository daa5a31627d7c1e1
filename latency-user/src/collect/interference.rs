//! Interference: what ran on a CPU while NET_RX waited for it. Tasks, softirqs, hard IRQs.

use latency_common::{
    cpu_state::{HARD_IRQ_SOURCE, TimeWithin},
    stage::{Stage, VECTOR_NAMES},
    stall_record::StallRecord,
    task_record::TaskRecord,
};

use super::context::Context;
use crate::{
    kernel::maps::stall_decode,
    model::stall::parts::{Interference, IrqPart, Task, TaskShare, VectorPart},
};

/// Functions that run softirqs, by their names in different kernels. If `__do_softirq` is the first
/// function of its section, it has a second name, which the kernel lists first.
const SOFTIRQ_FRAMES: [&str; 4] =
    ["handle_softirqs", "__do_softirq", "__softirqentry_text_start", "net_rx_action"];

/// The tasks of the samples.
#[derive(Default)]
pub(super) struct SampledTasks {
    tasks: Vec<TaskShare>,
    in_softirq: u64,
}

impl SampledTasks {
    /// Adds a sample. One inside a softirq counts for the softirq, not for the task that it
    /// interrupted.
    pub(super) fn add(&mut self, frames: &[String], task: Task) {
        if frames.iter().any(|frame| SOFTIRQ_FRAMES.contains(&frame.as_str())) {
            self.in_softirq += 1;
            return;
        }
        match self.tasks.iter_mut().find(|share| share.task == task) {
            Some(share) => share.samples += 1,
            None => self.tasks.push(TaskShare { task, samples: 1 }),
        }
    }
}

/// What ran during a wait, from its record and samples.
pub(super) fn interference(
    record: &StallRecord,
    sampled: SampledTasks,
    context: &Context,
) -> Interference {
    let SampledTasks { mut tasks, in_softirq } = sampled;
    tasks.sort_by_key(|share| std::cmp::Reverse(share.samples));
    let of_this_wait = |time: &&TimeWithin| time.span_start_ns == record.start_ns;
    let mut vectors: Vec<VectorPart> = record
        .interference
        .iter()
        .zip(VECTOR_NAMES)
        .filter(|(time, _)| of_this_wait(time))
        .map(|(time, vector)| VectorPart { vector: vector.into(), runs: time.runs, ns: time.ns })
        .collect();
    vectors.sort_by_key(|part| std::cmp::Reverse(part.ns));
    let irqs = Some(&record.interference[HARD_IRQ_SOURCE]).filter(of_this_wait);
    let irqs = irqs.map_or_else(IrqPart::default, |time| IrqPart { runs: time.runs, ns: time.ns });
    Interference {
        task: task(&record.task),
        tasks,
        in_softirq,
        vectors,
        irqs: context.is_timed(Stage::Irq).then_some(irqs),
    }
}

/// The task of a record.
pub(super) fn task(record: &TaskRecord) -> Task {
    Task { pid: record.pid, comm: stall_decode::comm(record) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_a_softirq_interrupted_is_not_counted() {
        let task = |comm: &str| Task { pid: 7, comm: comm.into() };
        let frames =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut found = SampledTasks::default();
        for run in ["handle_softirqs", "__do_softirq", "__softirqentry_text_start"] {
            found.add(&frames(&["tcp_collapse", run, "do_softirq", "ksys_write"]), task("writer"));
        }
        found.add(&frames(&["crc32", "ksys_write"]), task("hog"));
        found.add(&frames(&["ksys_write"]), task("hog"));
        assert_eq!(found.in_softirq, 3);
        assert_eq!(found.tasks, [TaskShare { task: task("hog"), samples: 2 }]);
    }
}
